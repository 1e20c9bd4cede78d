//! The parameters of a fault on their way from a caller. Must never hold a value back that its kind
//! has not asked for: an unknown name is an error of the caller's own code.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::net::error::{Error, Result};

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number: seconds, bytes, a rate.
    Number(f64),
    /// A flag.
    Flag(bool),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// The parameters of a fault by their names. One without a value is absent.
#[derive(Clone, Debug, Default)]
pub struct Params(BTreeMap<String, Value>);

impl Params {
    /// Adds a parameter.
    pub fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    fn wrong(name: &str, wanted: &str) -> Error {
        Error::Value(format!("{name}: must be {wanted}"))
    }

    /// A number from 0, if it is there.
    pub fn number(&self, name: &str) -> Result<Option<f64>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(&Value::Number(number)) if number >= 0.0 => Ok(Some(number)),
            Some(_) => Err(Self::wrong(name, "a number from 0")),
        }
    }

    /// A whole number from 0, if it is there.
    pub fn whole(&self, name: &str) -> Result<Option<u64>> {
        // As large as a number of bytes can become: the rest of the range is not exact.
        let number = self.number(name)?;
        Ok(number.map(|number| if number >= 1e18 { u64::MAX } else { number as u64 }))
    }

    /// A time, if it is there.
    pub fn time(&self, name: &str) -> Result<Option<Duration>> {
        let number = self.number(name)?;
        Ok(number.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)))
    }

    /// A probability, if it is there.
    pub fn rate(&self, name: &str) -> Result<Option<f64>> {
        match self.number(name)? {
            Some(rate) if rate > 1.0 => Err(Self::wrong(name, "from 0 to 1")),
            rate => Ok(rate),
        }
    }

    /// A flag; false if it is absent.
    pub fn flag(&self, name: &str) -> Result<bool> {
        match self.0.get(name) {
            None => Ok(false),
            Some(&Value::Flag(flag)) => Ok(flag),
            Some(_) => Err(Self::wrong(name, "true or false")),
        }
    }

    /// Text, if it is there.
    pub fn text(&self, name: &str) -> Result<Option<&str>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(Self::wrong(name, "text")),
        }
    }

    /// Bytes, if they are there.
    pub fn bytes(&self, name: &str) -> Result<Option<&[u8]>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Bytes(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(Self::wrong(name, "bytes")),
        }
    }

    /// A parameter that must be there.
    pub fn needed<T>(name: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| Self::wrong(name, "given"))
    }
}
