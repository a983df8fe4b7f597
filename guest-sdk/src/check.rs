//! What a job says of its own health.

/// How well the job is, in the words of the health report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All is well.
    Healthy,
    /// It works, but someone should look.
    Degraded,
    /// It does not do what it is for.
    Unhealthy,
}

/// A statement about the job's own health: a status, a sentence, and names and values beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub(crate) status: Status,
    pub(crate) description: String,
    pub(crate) data: Vec<(String, String)>,
}

impl Health {
    /// All is well.
    pub fn healthy() -> Health {
        Health { status: Status::Healthy, description: String::new(), data: Vec::new() }
    }

    /// It works, but someone should look, and this is why. The host keeps the first 1,024 bytes.
    pub fn degraded(why: impl Into<String>) -> Health {
        Health { status: Status::Degraded, description: why.into(), data: Vec::new() }
    }

    /// It does not do what it is for, and this is why. The host keeps the first 1,024 bytes.
    pub fn unhealthy(why: impl Into<String>) -> Health {
        Health { status: Status::Unhealthy, description: why.into(), data: Vec::new() }
    }

    /// Puts a name and a value beside it. The host keeps the first 32.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl ToString) -> Health {
        self.data.push((name.into(), value.to_string()));
        self
    }

    /// How well it is.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Why.
    pub fn description(&self) -> &str {
        &self.description
    }
}

/// What a health check may return.
pub trait IntoHealth {
    /// As a statement.
    fn into_health(self) -> Health;
}

impl IntoHealth for Health {
    fn into_health(self) -> Health {
        self
    }
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> IntoHealth for Result<Health, E> {
    fn into_health(self) -> Health {
        self.unwrap_or_else(|error| Health::unhealthy(crate::error::chain(&*error.into())))
    }
}
