//! Settings from environment variables.

use figment::value::{Dict, Map};
use figment::{Metadata, Profile, Provider};

const ENV_PREFIX: &str = "FEATURE_STORE_";

/// Settings from environment variables.
pub(super) struct Environment {
    name: &'static str,
    values: Vec<(String, String)>,
}

impl Environment {
    /// The plain names that everybody knows, and the names of our own.
    pub(super) fn split(environment: impl Iterator<Item = (String, String)>) -> (Self, Self) {
        let mut plain = Self { name: "environment variables", values: Vec::new() };
        let mut own = Self { name: "environment variables FEATURE_STORE_…", values: Vec::new() };
        for (key, value) in environment {
            // Kubernetes puts variables such as REDIS_PORT=tcp://10.0.0.1:6379 into every pod, one
            // set for each Service; those named like us or like Redis are not settings of ours.
            if is_service_link(&key, &value) {
                continue;
            }
            match key.as_str() {
                "REDIS_HOST" | "REDIS_PORT" | "REDIS_USERNAME" | "REDIS_PASSWORD" => {
                    plain.values.push((key.to_ascii_lowercase(), value));
                }
                _ => {
                    if let Some(name) = key.strip_prefix(ENV_PREFIX) {
                        own.values.push((name.to_ascii_lowercase(), value));
                    }
                }
            }
        }
        (plain, own)
    }
}

fn is_service_link(key: &str, value: &str) -> bool {
    let Some(rest) = key.strip_prefix(ENV_PREFIX).or_else(|| key.strip_prefix("REDIS_")) else {
        return false;
    };
    rest.starts_with("SERVICE_HOST")
        || rest.starts_with("SERVICE_PORT")
        || (rest == "PORT" && value.starts_with("tcp://"))
        || rest.starts_with("PORT_")
}

/// Settings whose text must stay as it is, though it may look like a number.
const TEXTS: [&str; 24] = [
    "store_url",
    "redis_host",
    "redis_username",
    "redis_password",
    "redis_tls_ca",
    "redis_tls_cert",
    "redis_tls_key",
    "redis_tls_server_name",
    "redis_key_prefix",
    "data_dir",
    "api_keys",
    "api_keys_file",
    "audit_log",
    "tls_cert",
    "tls_key",
    "tls_client_ca",
    "otlp_endpoint",
    "otlp_headers",
    "otlp_service_name",
    "embedding_url",
    "embedding_model",
    "embedding_api_key",
    "alerts__webhook_url",
    "alerts__instance",
];

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut dict = Dict::new();
        for (key, value) in &self.values {
            let value = if TEXTS.contains(&key.as_str()) {
                figment::value::Value::from(value.as_str())
            } else {
                // Numbers and booleans are recognised; anything else is text.
                match value.parse() {
                    Ok(value) => value,
                    Err(never) => match never {},
                }
            };
            // `__` nests, for settings that are tables.
            let mut path: Vec<&str> = key.split("__").collect();
            let leaf = path.pop().unwrap_or(key);
            let mut inner = &mut dict;
            for table in path {
                let entry = inner.entry(table.to_owned()).or_insert_with(|| Dict::new().into());
                match entry {
                    figment::value::Value::Dict(_, nested) => inner = nested,
                    _ => return Err(figment::Error::from(format!("{table} is a setting, not a table"))),
                }
            }
            inner.insert(leaf.to_owned(), value);
        }
        Ok(Map::from([(Profile::Default, dict)]))
    }
}
