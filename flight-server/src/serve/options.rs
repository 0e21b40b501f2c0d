//! The messages of the session actions of Flight, which the Arrow crate does not have yet: `Flight.proto` of Arrow 15.

use std::collections::HashMap;

/// A value of a session option.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OptionValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5")]
    pub(super) value: Option<Value>,
}

/// What a value can be; none takes the option back.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Boolean(bool),
    #[prost(sfixed64, tag = "3")]
    Integer(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Texts(Texts),
}

/// Several texts.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Texts {
    #[prost(string, repeated, tag = "1")]
    pub(super) values: Vec<String>,
}

/// `SetSessionOptionsRequest`, and `GetSessionOptionsResult`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SessionOptions {
    #[prost(map = "string, message", tag = "1")]
    pub(super) options: HashMap<String, OptionValue>,
}

/// `SetSessionOptionsResult`: what could not be set, and why.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Refused {
    #[prost(map = "string, message", tag = "1")]
    pub(super) errors: HashMap<String, Refusal>,
}

/// Why an option could not be set: 1 its name, 2 its value, 3 anything else.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Refusal {
    #[prost(int32, tag = "1")]
    pub(super) reason: i32,
}

/// `CloseSessionResult`: 1 for one that is closed.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Closed {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

impl OptionValue {
    /// A text as a value.
    pub(super) fn text(text: &str) -> Self {
        Self { value: Some(Value::Text(text.to_owned())) }
    }

    /// The value as SET has it.
    pub(super) fn to_text(&self) -> Option<String> {
        Some(match self.value.as_ref()? {
            Value::Text(text) => text.clone(),
            Value::Boolean(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
            Value::Double(value) => value.to_string(),
            Value::Texts(texts) => texts.values.join(","),
        })
    }
}
