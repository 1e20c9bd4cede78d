//! The states of a server. Owns the table of the steps between them; must never take a step itself.

/// The state of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing is open yet.
    New,
    /// The socket is open.
    Created,
    /// The socket has an address.
    Bound,
    /// The kernel queues connections.
    Listening,
    /// Connections are accepted and served.
    Serving,
    /// No more connections are accepted. Open ones are served until they end or the deadline
    /// passes.
    Draining,
    /// All threads have ended and all descriptors are closed. Final.
    Stopped,
}

/// A step that a caller can take with a server that does not serve yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Create,
    Bind,
    Listen,
    Start,
}

/// The state before each step, and the state after it. An adopted socket that is listening already
/// goes from `Created` to `Listening` at once.
const TABLE: [(State, Step, State); 4] = [
    (State::New, Step::Create, State::Created),
    (State::Created, Step::Bind, State::Bound),
    (State::Bound, Step::Listen, State::Listening),
    (State::Listening, Step::Start, State::Serving),
];

impl State {
    /// The name that users see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Created => "created",
            Self::Bound => "bound",
            Self::Listening => "listening",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }

    /// The next step from this state. None if there is none.
    pub(super) fn step(self) -> Option<Step> {
        TABLE.iter().find(|(from, ..)| *from == self).map(|&(_, step, _)| step)
    }

    /// Advice for a caller who asked for a step that does not fit this state.
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Draining | Self::Stopped => "a stopped server is final; make a new one",
            Self::Serving => "it has already started",
            _ => "the steps go create, bind, listen, start",
        }
    }
}

impl Step {
    fn row(self) -> (State, State) {
        let row = TABLE.iter().find(|&&(_, step, _)| step == self);
        let &(from, _, to) = row.expect("the table has each step");
        (from, to)
    }

    /// The state before the step.
    pub(super) fn from(self) -> State {
        self.row().0
    }

    /// The state after the step.
    pub(super) fn to(self) -> State {
        self.row().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_lead_from_new_to_serving_and_no_further() {
        let mut state = State::New;
        let mut steps = Vec::new();
        while let Some(step) = state.step() {
            assert_eq!(step.from(), state);
            assert!(step.to() > state);
            state = step.to();
            steps.push(step);
        }
        assert_eq!(steps, [Step::Create, Step::Bind, Step::Listen, Step::Start]);
        assert_eq!(state, State::Serving);
        assert_eq!((State::Draining.step(), State::Stopped.step()), (None, None));
    }
}
