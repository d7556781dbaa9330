import JSONCodec

/// The definitions of all settings. `sluice config check` prints this table with the effective values.
enum SettingTable {
    private static let nodes: Set<Setting.Reader> = [.gateway, .worker]
    /// Readers of the settings that a whole deployment shares.
    private static let shared: Set<Setting.Reader> = [.gateway, .worker, .operation]
    private static let day = Duration.seconds(86_400)

    static let all: [Setting] = [
        // Redis and the queue: the same on every node of a deployment.
        Setting(
            "SLUICE_REDIS_URL", .url(["redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"]),
            "redis://127.0.0.1:6379", shared,
            "URL of Redis: one server, a Unix socket, or the sentinels of a service."),
        Setting(
            "SLUICE_REDIS_CA_FILE", .file, nil, shared, "PEM file of trusted certificate authorities for rediss:// (default: the system's)."
        ),
        Setting(
            "SLUICE_REDIS_CERTIFICATE_FILE", .file, nil, shared,
            "PEM file of the client certificate's chain for rediss:// (with the key file)."),
        Setting("SLUICE_REDIS_KEY_FILE", .file, nil, shared, "PEM file of the client certificate's private key."),
        Setting(
            "SLUICE_REDIS_SENTINEL_PASSWORD", .text, nil, shared, isSecret: true,
            "Password of the sentinels themselves; the one in the URL is for the servers."),
        Setting("SLUICE_REDIS_SENTINEL_PASSWORD_FILE", .file, nil, shared, "File that contains the sentinels' password."),
        Setting(
            "SLUICE_REDIS_WAIT_REPLICAS", .integer(0...16), "0", shared,
            "Number of replicas that must have a submission, an interrupt or the end of a job before it is acknowledged, within 250 ms."),
        Setting("SLUICE_NAMESPACE", .text, "sluice", shared, "Prefix of every key and channel in Redis."),
        Setting(
            "SLUICE_PARTITIONS", .integer(1...1_024), "1", shared,
            "Number of partitions (hash tags) that Redis Cluster can distribute jobs over."),
        Setting(
            "SLUICE_LEASE", .duration(.milliseconds(300) ... .seconds(3_600)), "15s", shared,
            "Time a worker owns a job without renewing its lease; leases are renewed every third of it."),
        Setting(
            "SLUICE_RETENTION", .duration(.seconds(1)...(day * 30)), "600s", shared,
            "How long a job's record and event log are kept after its end."),
        Setting(
            "SLUICE_QUEUE_MAX", .integer(1...10_000_000), "10000", shared,
            "Maximum waiting jobs per class and partition; beyond it new jobs are rejected."),
        Setting(
            "SLUICE_QUEUE_MAX_PER_TENANT", .integer(0...10_000_000), "5000", shared,
            "Maximum waiting jobs per tenant and partition, in all classes; beyond it new jobs are rejected (0: no limit)."),
        Setting(
            "SLUICE_QUEUE_MAX_BYTES", .size(1_024...(1 << 40)), "256MiB", shared,
            "Maximum bytes of waiting and running jobs per class and partition; beyond it new jobs are rejected."),
        Setting(
            "SLUICE_QUEUE_MAX_BYTES_PER_TENANT", .size(0...(1 << 40)), "64MiB", shared,
            "Maximum bytes of waiting and running jobs per tenant and partition; beyond it new jobs are rejected (0: no limit)."),
        Setting(
            "SLUICE_LOG_MAX", .size(1_024...(256 << 20)), "16MiB", shared,
            "Maximum size of a job's event log; beyond it the job fails."),
        Setting("SLUICE_DEAD_MAX", .integer(0...1_000_000), "10000", shared, "Maximum number of dead letters per partition."),
        Setting(
            "SLUICE_DEAD_MAX_BYTES", .size(1_024...(1 << 40)), "256MiB", shared,
            "Maximum bytes of dead letters per partition; the oldest ones are deleted first."),
        Setting("SLUICE_MAX_CRASHES", .integer(1...100), "3", shared, "Number of lost workers after which a job becomes a dead letter."),

        // Worker.
        Setting("SLUICE_WORKER_NAME", .text, nil, [.worker], "The worker's consumer name in Redis (default: host-pid-random)."),
        Setting("SLUICE_CONCURRENCY", .integer(1...100_000), "256", [.worker], "Maximum running jobs per worker."),
        Setting(
            "SLUICE_DRAIN_TIMEOUT", .duration(.zero ... .seconds(86_400)), "25s", nodes,
            "How long running jobs and requests may continue after SIGTERM."),
        Setting("SLUICE_RETRIES", .integer(0...100), "3", [.worker], "Maximum retries of an upstream request before the first token."),
        Setting(
            "SLUICE_CONNECT_TIMEOUT", .duration(.milliseconds(1)...day), "5s", [.worker],
            "Timeout for DNS, TCP and TLS of an upstream connection."),
        Setting(
            "SLUICE_FIRST_TOKEN_TIMEOUT", .duration(.milliseconds(1)...day), "30s", [.worker],
            "Timeout from the request to the first output; a job may override it."),
        Setting(
            "SLUICE_IDLE_TIMEOUT", .duration(.milliseconds(1)...day), "30s", [.worker],
            "Timeout between two chunks of output; a job may override it."),
        Setting(
            "SLUICE_TOTAL_TIMEOUT", .duration(.milliseconds(1)...day), "10m", [.worker],
            "Timeout for a complete answer; a job may override it."),
        Setting("SLUICE_DEFAULT_MODEL", .text, "qwen-plus", nodes, "The model for requests that do not name one."),
        Setting(
            "SLUICE_METRICS_LISTEN", .address, nil, [.worker], "Address of a worker's /healthz, /readyz and /metrics (unset: off)."),

        // The one upstream, or several by file.
        Setting(
            "SLUICE_UPSTREAM_KIND", .choice(["openai", "dashscope", "anthropic", "ollama"]), "openai", [.worker],
            "The upstream's API dialect."),
        Setting(
            "SLUICE_UPSTREAM_URL", .url(["http", "https"]), nil, [.worker],
            "Base URL of a single upstream that serves every model, such as https://host/v1."),
        Setting("SLUICE_UPSTREAM_KEY", .text, nil, [.worker], isSecret: true, "The upstream's API key."),
        Setting("SLUICE_UPSTREAM_KEY_FILE", .file, nil, [.worker], "File that contains the upstream's API key."),
        Setting(
            "SLUICE_UPSTREAM_PREFIX", .choice(["none", "partial", "prefix", "continue"]), nil, [.worker],
            "How the upstream is asked to continue a partial answer (default: none; dashscope: partial)."),
        Setting(
            "SLUICE_UPSTREAMS_FILE", .file, nil, [.worker], "YAML or JSON file with a list of upstreams, instead of SLUICE_UPSTREAM_URL."),
        Setting(
            "SLUICE_TENANTS_FILE", .file, nil, nodes, "YAML or JSON file with the weights and limits of tenants."),
        Setting(
            "SLUICE_UPSTREAM_CA_FILE", .file, nil, [.worker],
            "PEM file of trusted certificate authorities for upstreams (default: the system's)."),
        Setting("SLUICE_UPSTREAM_HTTP2", .flag, "off", [.worker], "Use HTTP/2 with upstreams that support it."),

        // Speech.
        Setting("SLUICE_SPEECH_KIND", .choice(["openai", "dashscope"]), nil, [.worker], "The speech upstream's API (default: openai)."),
        Setting("SLUICE_SPEECH_URL", .url(["http", "https"]), nil, [.worker], "Base URL of the speech upstream (unset: no speech)."),
        Setting("SLUICE_SPEECH_KEY", .text, nil, [.worker], isSecret: true, "The speech upstream's API key."),
        Setting("SLUICE_SPEECH_MODEL", .text, nil, [.worker], "Speech model; a job may override it."),
        Setting("SLUICE_SPEECH_VOICE", .text, nil, [.worker], "Voice; a job may override it."),
        Setting(
            "SLUICE_SPEECH_CONCURRENCY", .integer(1...100_000), "256", [.worker],
            "Maximum concurrent speech requests per worker, one per sentence; further sentences wait."),

        // Recognition of the user's speech, and retrieval of documents. The gateway reads whether there is one.
        Setting(
            "SLUICE_RECOGNITION_KIND", .choice(["openai", "dashscope"]), nil, [.worker], "The recognition upstream's API (default: openai)."
        ),
        Setting(
            "SLUICE_RECOGNITION_URL", .url(["http", "https"]), nil, nodes,
            "Base URL of the recognition upstream (unset: no VOICE requests). Set it on gateways too."),
        Setting("SLUICE_RECOGNITION_KEY", .text, nil, [.worker], isSecret: true, "The recognition upstream's API key."),
        Setting(
            "SLUICE_RECOGNITION_MODEL", .text, nil, [.worker], "Recognition model (default: whisper-1; dashscope: qwen3-asr-flash)."),
        Setting("SLUICE_RECOGNITION_LANGUAGE", .text, nil, [.worker], "Language of the users, such as en (unset: detected)."),
        Setting(
            "SLUICE_RETRIEVAL_URL", .url(["http", "https"]), nil, nodes,
            "Base URL of the retrieval upstream (unset: no retrieval). Set it on gateways too."),
        Setting("SLUICE_RETRIEVAL_KEY", .text, nil, [.worker], isSecret: true, "The retrieval upstream's key, sent as X-API-Key."),
        Setting("SLUICE_RETRIEVAL_TOP_K", .integer(1...100), "3", [.worker], "Maximum documents of one retrieval."),
        Setting("SLUICE_RETRIEVAL_THRESHOLD", .text, "0.5", [.worker], "Minimum similarity of a document, 0 to 1."),
        Setting(
            "SLUICE_RETRIEVAL_TIMEOUT", .duration(.milliseconds(1)...day), "3s", [.worker],
            "Maximum time of a retrieval; beyond it the job goes on without documents."),

        // Webhooks.
        Setting(
            "SLUICE_WEBHOOK_URL", .url(["http", "https"]), nil, [.worker],
            "Receiver of webhooks about responses in the background (unset: none)."),
        Setting(
            "SLUICE_WEBHOOK_SECRET", .text, nil, [.worker], isSecret: true,
            "Secret that signs webhooks: whsec_ and base64, or any text (unset: not signed)."),
        Setting("SLUICE_WEBHOOK_SECRET_FILE", .file, nil, [.worker], "File with SLUICE_WEBHOOK_SECRET."),
        Setting(
            "SLUICE_WEBHOOK_ALLOW", .text, "public", [.worker],
            "Addresses that webhooks are sent to: public, any, addresses and networks such as 10.0.0.0/8, separated by commas."),

        // Gateway.
        Setting("SLUICE_LISTEN", .address, "127.0.0.1:8080", [.gateway, .chat], "Address that the gateway listens on."),
        Setting("SLUICE_GATEWAY_NAME", .text, nil, [.gateway], "The gateway's name in Redis (default: host-pid-random)."),
        Setting("SLUICE_AUTH", .choice(["none"]), nil, [.gateway], "none: no authentication; only on a loopback address."),
        Setting("SLUICE_AUTH_NONE_ANYWHERE", .flag, "off", [.gateway], "Allow SLUICE_AUTH=none on addresses other than loopback."),
        Setting(
            "SLUICE_API_KEYS", .list, nil, [.gateway], isSecret: true,
            "API keys as tenant:key, separated by commas; keys have at least 16 bytes."),
        Setting("SLUICE_API_KEYS_FILE", .file, nil, [.gateway], "File of API keys as tenant:key lines."),
        Setting("SLUICE_JWT_KEY_FILE", .file, nil, [.gateway], "Key that verifies the signatures of JSON Web Tokens."),
        Setting("SLUICE_JWT_JWKS_FILE", .file, nil, [.gateway], "JSON Web Key Set that verifies the signatures of JSON Web Tokens."),
        Setting("SLUICE_JWT_ISSUER", .text, nil, [.gateway], "Required iss claim of a token."),
        Setting("SLUICE_JWT_AUDIENCE", .text, nil, [.gateway], "Required aud claim of a token."),
        Setting("SLUICE_JWT_REQUIRE_EXP", .flag, "on", [.gateway], "Reject tokens without exp, which would never expire."),
        Setting("SLUICE_ACCOUNTS_FILE", .file, nil, [.gateway], "File of accounts as tenant:account:hash lines (bcrypt or scrypt)."),
        Setting("SLUICE_ADMIN_KEY", .text, nil, [.gateway], isSecret: true, "Key to the dashboard and its actions (unset: off)."),
        Setting(
            "SLUICE_VIEWER_KEY", .text, nil, [.gateway], isSecret: true, "Key to the dashboard without its actions (unset: off)."),
        Setting(
            "SLUICE_ALLOWED_ORIGINS", .list, nil, [.gateway],
            "Allowed Origin headers of browsers, for WebSockets and CORS (unset: the same host)."),
        Setting("SLUICE_WEBSOCKET_PATHS", .list, "/ws/agent/stream", [.gateway], "Paths of the WebSocket, separated by commas."),
        Setting(
            "SLUICE_MAX_AUDIO", .size(1_024...(64 << 20)), "4MiB", [.gateway],
            "Maximum audio of one VOICE request; beyond it PAYLOAD_TOO_LARGE."),
        Setting(
            "SLUICE_VOICE_RATE", .integer(8_000...48_000), "16000", [.gateway],
            "Sample rate of the voice on WebSockets, in Hz; a client may choose another one in REGISTER."),
        Setting(
            "SLUICE_GRACE", .duration(.zero ... .seconds(3_600)), "10s", [.gateway],
            "How long the requests of a lost WebSocket continue before they are interrupted, unless the client resumes them."),
        Setting(
            "SLUICE_HEARTBEAT", .duration(.milliseconds(100) ... .seconds(3_600)), "25s", [.gateway],
            "Interval between heartbeats on a WebSocket."),
        Setting(
            "SLUICE_SESSION_TIMEOUT", .duration(.seconds(1)...(day * 30)), "1h", [.gateway],
            "How long a session is kept after its last request."),
        Setting(
            "SLUICE_SESSION_WARNING", .duration(.zero...(day * 30)), "5m", [.gateway],
            "How long before a session's end the client is warned; at most half of SLUICE_SESSION_TIMEOUT."),
        Setting(
            "SLUICE_RESPONSE_TTL", .duration(.seconds(1)...(day * 30)), "24h", [.gateway],
            "How long a stored response (POST /v1/responses) is kept from its creation."),
        Setting("SLUICE_HISTORY_TURNS", .integer(0...1_000), "20", [.gateway], "Maximum turns in a session's history (0: none)."),
        Setting(
            "SLUICE_HISTORY_MAX", .size(0...(16 << 20)), "256KiB", [.gateway],
            "Maximum size of a session's history; the oldest turns are dropped first."),
        Setting(
            "SLUICE_HANDSHAKE_TIMEOUT", .duration(.milliseconds(10) ... .seconds(600)), "5s", [.gateway],
            "Timeout from the connection to the end of the first request's head."),
        Setting(
            "SLUICE_BODY_TIMEOUT", .duration(.milliseconds(10) ... .seconds(3_600)), "30s", [.gateway],
            "Timeout for the body of an HTTP request; beyond it 408."),
        Setting(
            "SLUICE_DRAIN_NOTICE", .duration(.zero ... .seconds(3_600)), "2s", [.gateway],
            "Minimum duration of a drain, so that readiness probes notice it; at most SLUICE_DRAIN_TIMEOUT."),
        Setting(
            "SLUICE_REGISTER_TIMEOUT", .duration(.milliseconds(10) ... .seconds(600)), "10s", [.gateway],
            "Timeout from the WebSocket upgrade to REGISTER; beyond it close 4408."),
        Setting(
            "SLUICE_MAX_MESSAGE", .size(1_024...(64 << 20)), "1MiB", [.gateway],
            "Maximum size of a client's message; beyond it close 1009."),
        Setting(
            "SLUICE_MAX_BODY", .size(1_024...(64 << 20)), "8MiB", [.gateway],
            "Maximum size of the body of a request to /v1/*; beyond it 413."),
        Setting(
            "SLUICE_FINISH_REASON_INTERRUPTED", .choice(["stop", "interrupted"]), "stop", [.gateway],
            "The finish_reason of an interrupted chat completion."),
        Setting("SLUICE_MAX_JSON_DEPTH", .integer(4...1_000), "32", [.gateway], "Maximum nesting depth of a message's JSON."),
        Setting("SLUICE_MAX_HEADER", .size(1_024...(1 << 20)), "16KiB", [.gateway], "Maximum size of an HTTP request's head."),
        Setting(
            "SLUICE_MAX_OUTGOING", .size(4_096...(1 << 30)), "1MB", [.gateway],
            "Maximum unsent bytes of one WebSocket; beyond it close 4430."),
        Setting(
            "SLUICE_MAX_UNSENT_BYTES_PER_TENANT", .size(0...(1 << 40)), "64MiB", [.gateway],
            "Maximum unsent bytes of all connections of one tenant (0: no limit); beyond it the connection being written to is closed."),
        Setting("SLUICE_MAX_REQUESTS", .integer(1...100_000), "64", [.gateway], "Maximum running requests of one session."),
        Setting(
            "SLUICE_MAX_REQUESTS_PER_TENANT", .integer(0...1_000_000), "10000", [.gateway],
            "Maximum running requests per tenant and gateway (0: no limit); beyond it RATE_LIMITED or 429."),
        Setting(
            "SLUICE_MAX_STREAMS_PER_TENANT", .integer(0...1_000_000), "1000", [.gateway],
            "Maximum event streams per tenant and gateway (0: no limit); beyond it 429."),
        Setting(
            "SLUICE_MAX_HTTP_REQUESTS_PER_TENANT", .integer(0...1_000_000), "1000", [.gateway],
            "Maximum pending HTTP requests per tenant, without completions and event streams (0: no limit); beyond it 429."),
        Setting(
            "SLUICE_MAX_BODY_BYTES_PER_TENANT", .size(0...(16 << 30)), "16MiB", [.gateway],
            "Maximum bytes of buffered request bodies per tenant and gateway (0: no limit); beyond it 429."),
        Setting(
            "SLUICE_MAX_MESSAGES_PER_SECOND", .integer(0...1_000_000), "20000", [.gateway],
            "Maximum frames per second on one WebSocket (0: no limit); beyond it close 4429."),
        Setting(
            "SLUICE_MAX_BYTES_PER_SECOND", .size(0...(1 << 40)), "32MiB", [.gateway],
            "Maximum bytes read and written per second for a tenant's WebSockets (0: no limit); beyond it reads are throttled."
        ),
        Setting(
            "SLUICE_MAX_BYTES_PER_TENANT", .size(0...(1 << 40)), "64MiB", [.gateway],
            "Maximum bytes of a tenant's messages that a gateway buffers (0: no limit); beyond it RATE_LIMITED."),
        Setting("SLUICE_SESSION_MAX", .size(1_024...(16 << 20)), "64KiB", [.gateway], "Maximum size of one session's settings as JSON."),
        Setting(
            "SLUICE_MAX_SESSIONS_PER_TENANT", .integer(0...100_000_000), "100000", [.gateway],
            "Maximum sessions per tenant in Redis (0: no limit); beyond it RATE_LIMITED."),
        Setting(
            "SLUICE_MAX_SESSION_BYTES_PER_TENANT", .size(0...(1 << 40)), "256MiB", [.gateway],
            "Maximum bytes of a tenant's sessions in Redis (0: no limit); beyond it RATE_LIMITED."),
        Setting(
            "SLUICE_MAX_RESPONSE_BYTES_PER_TENANT", .size(0...(1 << 40)), "256MiB", [.gateway],
            "Maximum bytes of a tenant's stored responses in Redis, event logs included (0: no limit); beyond it 429."),
        Setting("SLUICE_MAX_SOCKETS", .integer(1...1_000_000), "10000", [.gateway], "Maximum WebSockets per gateway."),
        Setting(
            "SLUICE_MAX_SOCKETS_PER_TENANT", .integer(0...1_000_000), nil, [.gateway],
            "Maximum WebSockets per tenant (default: half of SLUICE_MAX_SOCKETS; 0: no limit)."),
        Setting(
            "SLUICE_MAX_SOCKETS_PER_ADDRESS", .integer(0...1_000_000), nil, [.gateway],
            "Maximum WebSockets per client address (default: a quarter of SLUICE_MAX_SOCKETS; 0: no limit, for use behind a proxy)."),
        Setting("SLUICE_TLS_CERTIFICATE_FILE", .file, nil, [.gateway], "PEM file of the listener's certificate chain."),
        Setting("SLUICE_TLS_KEY_FILE", .file, nil, [.gateway], "PEM file of the certificate's private key."),

        // Commands.
        Setting("SLUICE_API_KEY", .text, nil, [.chat], isSecret: true, "API key of sluice chat."),

        // Logs.
        Setting(
            "SLUICE_LOG_LEVEL", .choice(["trace", "debug", "info", "notice", "warning", "error", "critical"]), "info",
            [.gateway, .worker, .simulator], "Minimum level of log messages; logs go to standard error."),
        Setting("SLUICE_LOG_FORMAT", .choice(["text", "json"]), "text", [.gateway, .worker, .simulator], "Format of log lines."),
    ]

    private static let byName = Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })

    /// The definition of a setting; nil when there is no such setting.
    static func named(_ name: String) -> Setting? { byName[name] }

    /// The most similar setting name, at an edit distance of at most 4.
    static func nearest(to name: String) -> String? {
        all.map { ($0.name, distance($0.name, name.uppercased())) }.min { $0.1 < $1.1 }.flatMap { $0.1 <= 4 ? $0.0 : nil }
    }

    /// The Levenshtein distance of two names in bytes.
    private static func distance(_ left: String, _ right: String) -> Int {
        let left = Array(left.utf8), right = Array(right.utf8.prefix(100))
        var row = Array(0...right.count)
        for (index, byte) in left.enumerated() {
            var diagonal = row[0]
            row[0] = index + 1
            for column in right.indices {
                let replaced = diagonal + (byte == right[column] ? 0 : 1)
                diagonal = row[column + 1]
                row[column + 1] = min(replaced, row[column] + 1, row[column + 1] + 1)
            }
        }
        return row[right.count]
    }
}
