//! What a step says of the input. Must never keep more of it than what is captured.

/// A part of the input, by name.
pub(super) type Capture = (Box<str>, Vec<u8>);

/// What an expectation says of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is met by this number of bytes.
    Met { used: usize, captures: Vec<Capture> },
    /// More input can still meet it.
    Open,
    /// It cannot be met any more. The text says why, where the bytes alone do not.
    Failed(String),
}

impl Verdict {
    /// Met by this number of bytes.
    pub(super) fn met(used: usize) -> Self {
        Self::Met { used, captures: Vec::new() }
    }

    /// Met by this number of bytes, of which a part is captured if it has a name.
    pub(super) fn named(used: usize, name: Option<&str>, part: &[u8]) -> Self {
        let captures = name.map(|name| (name.into(), part.to_vec())).into_iter().collect();
        Self::Met { used, captures }
    }

    /// Not met within the limit.
    pub(super) fn over(limit: usize) -> Self {
        Self::Failed(format!("more than {limit} bytes came without it"))
    }

    /// The number of bytes that meet it.
    #[cfg(test)]
    pub(super) fn used(&self) -> Option<usize> {
        if let Self::Met { used, .. } = self { Some(*used) } else { None }
    }
}
