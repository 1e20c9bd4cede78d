//! The search for bytes in bytes. Must never copy them.

/// Where `wanted` first begins in `input`.
pub(in crate::net::services) fn find(input: &[u8], wanted: &[u8]) -> Option<usize> {
    let (&first, rest) = wanted.split_first()?;
    let mut from = 0;
    while let Some(at) = input[from..].iter().position(|&byte| byte == first) {
        let at = from + at;
        if input[at + 1..].starts_with(rest) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}
