//! Services as Python sees them: one class each. Must never do what a service does.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::net;
use crate::net::services;

/// What a server does with each connection. Made by its subclasses, such as Echo().
#[pyclass(frozen, subclass, module = "rsock")]
pub(super) struct Service {
    pub(super) inner: Arc<dyn net::service::Service>,
}

#[pymethods]
impl Service {
    fn __repr__(&self) -> String {
        self.inner.name()
    }
}

/// Makes the Python class of each service: its doc, its name, its arguments, and how the engine's
/// own is made of them. One entry here registers a service.
macro_rules! services {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) => $make:expr;)*) => {$(
        $(#[$doc])*
        #[pyclass(frozen, extends = Service, module = "rsock")]
        pub(super) struct $name;

        #[pymethods]
        impl $name {
            #[new]
            pub(super) fn make($($argument: $type),*) -> PyClassInitializer<Self> {
                let inner: Arc<dyn net::service::Service> = Arc::new($make);
                PyClassInitializer::from(Service { inner }).add_subclass(Self)
            }
        }
    )*};
}

services! {
    /// Sends back whatever it receives, until the peer has finished (RFC 862). Served by Rust threads
    /// alone: it never needs the interpreter.
    Echo() => services::Echo;
}
