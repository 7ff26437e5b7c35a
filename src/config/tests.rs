use super::*;

fn load(environment: &[(&str, &str)]) -> Result<Config, String> {
    let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Config::load_from(None, environment).map_err(|error| error.to_string())
}

fn load_file(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feature-store.toml");
    std::fs::write(&path, text).unwrap();
    Config::load_from(Some(&path), std::iter::empty()).map_err(|error| error.to_string())
}

#[test]
fn nothing_configured_is_the_embedded_store_on_loopback() {
    let config = load(&[]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.store(), StoreChoice::Embedded("./data".into()));
}

#[test]
fn the_seeds_names_and_plain_redis_names_work() {
    let config = load(&[("REDIS_HOST", "redis"), ("REDIS_PORT", "6380"), ("REDIS_PASSWORD", "007")]).unwrap();
    assert_eq!(config.store(), StoreChoice::Redis(Secret::new("redis://redis:6380".into())));
    assert_eq!(config.redis_password.unwrap().expose(), "007");
    let config = load_file("default_ttl = \"2h\"\nembedding_ttl = 60\nmax_versions = 3\nenable_versioning = false\nenable_monitoring = false\nredis_host = \"::1\"").unwrap();
    assert_eq!(config.default_ttl, Ttl::After(Span::from_secs(7200)));
    assert_eq!(config.embedding_ttl, Ttl::After(Span::from_secs(60)));
    assert_eq!((config.max_versions, config.enable_versioning, config.enable_monitoring), (3, false, false));
    assert_eq!(config.store(), StoreChoice::Redis(Secret::new("redis://[::1]:6379".into())));
}

#[test]
fn the_environment_goes_before_the_file_and_our_names_before_plain_ones() {
    let config = load(&[
        ("REDIS_HOST", "plain"),
        ("FEATURE_STORE_REDIS_HOST", "own"),
        ("FEATURE_STORE_DEFAULT_TTL", "never"),
    ])
    .unwrap();
    assert_eq!(config.redis_host.as_deref(), Some("own"));
    assert_eq!(config.default_ttl, Ttl::Never);
}

#[test]
fn what_kubernetes_puts_into_pods_is_not_a_setting() {
    let links = [
        ("REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("REDIS_SERVICE_HOST", "10.0.0.1"),
        ("FEATURE_STORE_PORT", "tcp://10.0.0.2:80"),
        ("FEATURE_STORE_SERVICE_PORT_HTTP", "80"),
        ("FEATURE_STORE_PORT_80_TCP_ADDR", "10.0.0.2"),
    ];
    assert_eq!(load(&links).unwrap(), Config::default());
}

#[test]
fn a_wrong_key_stops_the_start_with_its_name_and_origin() {
    let error = load(&[("FEATURE_STORE_DEFAULT_TLL", "60")]).unwrap_err();
    assert!(
        error.contains("default_tll")
            && error.contains("FEATURE_STORE_")
            && error.contains("did you mean default_ttl"),
        "{error}"
    );
    let error = load_file("max_version = 3").unwrap_err();
    assert!(error.contains("max_version ") && error.contains("feature-store.toml"), "{error}");
    let error = load_file("default_ttl = \"soon\"").unwrap_err();
    assert!(error.contains("default_ttl") && error.contains("feature-store.toml"), "{error}");
    let error = load(&[("FEATURE_STORE_LISTEN", "everywhere")]).unwrap_err();
    assert!(error.contains("listen") && error.contains("environment"), "{error}");
}

#[test]
fn tables_nest_and_their_keys_are_known_too() {
    let config =
        load(&[("FEATURE_STORE_ALERTS__WINDOW", "10m"), ("FEATURE_STORE_ALERTS__FOR", "0")]).unwrap();
    assert_eq!(config.alerts.window, Span::from_secs(600));
    assert_eq!(config.alerts.fire_after, Duration0::default());
    let config = load_file("[alerts]\nretrieval_p99 = \"50ms\"\nmemory = 1\n").unwrap();
    assert_eq!(config.alerts.retrieval_p99, Span::of_millis(50));
    let error = load_file("[alerts]\nwindwo = 5").unwrap_err();
    assert!(error.contains("alerts.windwo (") && error.contains("feature-store.toml"), "{error}");
    assert!(error.contains("did you mean alerts.window"), "{error}");
    let error = load(&[("FEATURE_STORE_ALERTS__WINDWO", "5")]).unwrap_err();
    assert!(error.contains("alerts.windwo"), "{error}");
    let error = load(&[("FEATURE_STORE_ALERTS__WINDOW", "soon")]).unwrap_err();
    assert!(error.contains("alerts.window"), "{error}");
}

#[test]
fn contradictions_stop_the_start() {
    for environment in [
        [("FEATURE_STORE_STORE_URL", "redis://a"), ("REDIS_HOST", "b")].as_slice(),
        &[("REDIS_PORT", "6379")],
        &[("FEATURE_STORE_WAIT_REPLICAS", "1")],
        &[("FEATURE_STORE_REDIS_PASSWORD", "x")],
        &[("FEATURE_STORE_STORE_URL", "mysql://a")],
        &[("FEATURE_STORE_STORE_URL", "embedded:")],
        &[("FEATURE_STORE_MAX_VERSIONS", "0")],
        &[("FEATURE_STORE_EMBEDDING_PROVIDER", "openai")],
        &[("FEATURE_STORE_EMBEDDING_URL", "http://a")],
        &[("FEATURE_STORE_EMBEDDING_API_KEY", "k")],
        &[
            ("FEATURE_STORE_EMBEDDING_PROVIDER", "openai"),
            ("FEATURE_STORE_EMBEDDING_URL", "a"),
            ("FEATURE_STORE_EMBEDDING_MODEL", "m"),
        ],
        &[
            ("FEATURE_STORE_EMBEDDING_PROVIDER", "openai"),
            ("FEATURE_STORE_EMBEDDING_URL", "http://a"),
            ("FEATURE_STORE_EMBEDDING_MODEL", "m"),
            ("FEATURE_STORE_EMBEDDING_TIMEOUT", "30"),
        ],
        &[("FEATURE_STORE_REDIS_KEY_PREFIX", "a{b")],
        &[("FEATURE_STORE_LISTEN", "0.0.0.0:8080")],
        &[("FEATURE_STORE_AUTH", "api_keys")],
        &[("FEATURE_STORE_AUTH", "none"), ("FEATURE_STORE_API_KEYS_FILE", "a")],
        &[("FEATURE_STORE_API_KEYS", "keys: []"), ("FEATURE_STORE_API_KEYS_FILE", "a")],
        &[("FEATURE_STORE_RATE_LIMIT", "5")],
        &[("FEATURE_STORE_API_KEYS", "keys: []"), ("FEATURE_STORE_RATE_BURST", "5")],
        &[("FEATURE_STORE_PUBLIC_METRICS", "false")],
        &[("FEATURE_STORE_CORS_ORIGINS", "[\"*\"]")],
        &[("FEATURE_STORE_MAX_CONCURRENT_REQUESTS", "0")],
        &[("FEATURE_STORE_METRICS_LISTEN", "127.0.0.1:8080")],
        &[("FEATURE_STORE_METRICS_LISTEN", "127.0.0.1:1"), ("FEATURE_STORE_ENABLE_MONITORING", "false")],
        &[("FEATURE_STORE_MAX_HEADER_BYTES", "100")],
        &[("FEATURE_STORE_MAX_CONNECTIONS", "0")],
        &[("FEATURE_STORE_HTTP2_MAX_STREAMS", "0")],
        &[("FEATURE_STORE_TLS_CERT", "a")],
        &[("FEATURE_STORE_TLS_KEY", "a")],
        &[("FEATURE_STORE_TLS_CLIENT_CA", "a")],
        &[("FEATURE_STORE_REDIS_TLS_CA", "a")],
        &[("FEATURE_STORE_STORE_URL", "redis://a"), ("FEATURE_STORE_REDIS_TLS_CA", "a")],
        &[("FEATURE_STORE_STORE_URL", "rediss://a"), ("FEATURE_STORE_REDIS_TLS_CERT", "a")],
        &[("FEATURE_STORE_STORE_URL", "rediss://a"), ("FEATURE_STORE_REDIS_TLS_KEY", "a")],
        &[("FEATURE_STORE_OTLP_ENDPOINT", "collector:4318")],
        &[("FEATURE_STORE_OTLP_HEADERS", "a=b")],
        &[("FEATURE_STORE_OTLP_ENDPOINT", "http://a"), ("FEATURE_STORE_OTLP_HEADERS", "a b=c")],
        &[("FEATURE_STORE_OTLP_SAMPLE_RATIO", "2")],
        &[("FEATURE_STORE_ALERTS__MEMORY", "1.5")],
        &[("FEATURE_STORE_ALERTS__WINDOW", "1s")],
        &[("FEATURE_STORE_ALERTS__WEBHOOK_URL", "alertmanager:9093")],
    ] {
        let error = load(environment).unwrap_err();
        assert!(
            environment.iter().any(|(key, _)| {
                let name = key.strip_prefix("FEATURE_STORE_").unwrap_or(key).to_ascii_lowercase();
                let name = name.replace("__", ".");
                error.contains(&name)
            }) || error.contains("redis_password"),
            "{error}"
        );
    }
}

#[test]
fn who_can_be_reached_says_who_is_let_in() {
    let listen = ("FEATURE_STORE_LISTEN", "0.0.0.0:8080");
    assert!(load(&[listen, ("FEATURE_STORE_AUTH", "none")]).unwrap().keys().is_none());
    assert!(load(&[listen, ("FEATURE_STORE_API_KEYS", "{\"keys\": []}")]).unwrap().keys().is_some());
}

#[test]
fn secrets_are_not_printed() {
    let config = load(&[("FEATURE_STORE_STORE_URL", "redis://user:hunter2@a")]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let collector = ("FEATURE_STORE_OTLP_ENDPOINT", "http://a");
    let config = load(&[collector, ("FEATURE_STORE_OTLP_HEADERS", "Authorization=Bearer hunter2=, b=c")]);
    let config = config.unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let headers = config.tracing().unwrap().headers;
    assert_eq!((headers.len(), headers["Authorization"].as_str()), (2, "Bearer hunter2="));
}
