//! Stages on their way from a session to the engine. Must never look into them: services lie below
//! the stages.

use std::any::Any;

/// What a session puts between a leg and itself, by `Io::put_stages`. What makes it and what takes
/// it agree on its type.
pub struct LegStages(Box<dyn Any + Send>);

impl LegStages {
    /// Wraps a chain of stages.
    #[must_use]
    pub fn new<T: Send + 'static>(chain: T) -> Self {
        Self(Box::new(chain))
    }

    /// The chain; None of another type.
    #[must_use]
    pub fn into_chain<T: 'static>(self) -> Option<Box<T>> {
        self.0.downcast().ok()
    }
}
