import JSONCodec

/// Every setting there is, once. `sluice config check` prints this table with the values that are in force.
enum SettingTable {
    private static let nodes: Set<Setting.Reader> = [.gateway, .worker]
    private static let everyone: Set<Setting.Reader> = [.gateway, .worker, .operation]
    private static let day = Duration.seconds(86_400)

    static let all: [Setting] = [
        // Redis and the queue: the same on every node of a deployment.
        Setting(
            "SLUICE_REDIS_URL", .url(["redis", "rediss", "unix", "redis+sentinel", "redis+cluster"]), "redis://127.0.0.1:6379", everyone,
            "Where Redis is."),
        Setting("SLUICE_REDIS_CA_FILE", .file, nil, everyone, "PEM file of the authorities to trust for rediss:// (else the system's)."),
        Setting("SLUICE_NAMESPACE", .text, "sluice", everyone, "The first part of every key and channel in Redis."),
        Setting("SLUICE_PARTITIONS", .integer(1...1_024), "1", everyone, "Hash tags over which Redis Cluster may spread jobs."),
        Setting(
            "SLUICE_LEASE", .duration(.milliseconds(300) ... .seconds(3_600)), "15s", everyone,
            "A worker that is not heard of for so long has lost its jobs; a beat is a third of it."),
        Setting("SLUICE_RETENTION", .duration(.seconds(1)...(day * 30)), "600s", everyone, "How long record and log outlive a job."),
        Setting("SLUICE_QUEUE_MAX", .integer(1...10_000_000), "10000", everyone, "Waiting jobs per class before new ones are refused."),
        Setting(
            "SLUICE_QUEUE_MAX_PER_TENANT", .integer(0...10_000_000), "5000", everyone,
            "Waiting jobs of one tenant, all classes together, before its new ones are refused (0: no limit)."),
        Setting(
            "SLUICE_QUEUE_MAX_BYTES", .size(1_024...(1 << 40)), "256MiB", everyone,
            "Bytes of waiting and running jobs per class and partition before new ones are refused."),
        Setting(
            "SLUICE_QUEUE_MAX_BYTES_PER_TENANT", .size(0...(1 << 40)), "64MiB", everyone,
            "Bytes of one tenant's waiting and running jobs per partition before its new ones are refused (0: no limit)."),
        Setting(
            "SLUICE_LOG_MAX", .size(1_024...(256 << 20)), "16MiB", everyone,
            "Bytes of events that one job may log; beyond it the job fails."),
        Setting("SLUICE_DEAD_MAX", .integer(0...1_000_000), "10000", everyone, "Dead letters kept."),
        Setting(
            "SLUICE_DEAD_MAX_BYTES", .size(1_024...(1 << 40)), "256MiB", everyone,
            "Bytes of dead letters kept per partition; the oldest ones are deleted first."),
        Setting("SLUICE_MAX_CRASHES", .integer(1...100), "3", everyone, "Lost workers after which a job is given up."),

        // Worker.
        Setting("SLUICE_WORKER_NAME", .text, nil, [.worker], "The consumer's name in Redis (else host-pid-random)."),
        Setting("SLUICE_CONCURRENCY", .integer(1...100_000), "256", [.worker], "Jobs in flight per worker."),
        Setting(
            "SLUICE_DRAIN_TIMEOUT", .duration(.zero ... .seconds(86_400)), "25s", nodes, "How long running work may go on after SIGTERM."),
        Setting("SLUICE_RETRIES", .integer(0...100), "3", [.worker], "Further tries at an upstream before the first token."),
        Setting("SLUICE_CONNECT_TIMEOUT", .duration(.milliseconds(1)...day), "5s", [.worker], "DNS, connect and TLS together."),
        Setting(
            "SLUICE_FIRST_TOKEN_TIMEOUT", .duration(.milliseconds(1)...day), "30s", [.worker],
            "From the request to the first output, unless the job says otherwise."),
        Setting(
            "SLUICE_IDLE_TIMEOUT", .duration(.milliseconds(1)...day), "30s", [.worker],
            "Between two pieces of output, unless the job says otherwise."),
        Setting(
            "SLUICE_TOTAL_TIMEOUT", .duration(.milliseconds(1)...day), "10m", [.worker],
            "For a whole answer, unless the job says otherwise."),
        Setting("SLUICE_DEFAULT_MODEL", .text, "qwen-plus", nodes, "The model of a request that names none."),
        Setting(
            "SLUICE_METRICS_LISTEN", .address, nil, [.worker], "Where a worker answers /healthz, /readyz and /metrics (unset: nowhere)."),

        // The one upstream, or several by file.
        Setting(
            "SLUICE_UPSTREAM_KIND", .choice(["openai", "dashscope", "anthropic", "ollama"]), "openai", [.worker],
            "What the upstream speaks."),
        Setting("SLUICE_UPSTREAM_URL", .url(["http", "https"]), nil, [.worker], "One upstream that takes every model name, as …/v1."),
        Setting("SLUICE_UPSTREAM_KEY", .text, nil, [.worker], isSecret: true, "Its key."),
        Setting("SLUICE_UPSTREAM_KEY_FILE", .file, nil, [.worker], "A file that holds its key."),
        Setting(
            "SLUICE_UPSTREAM_PREFIX", .choice(["none", "partial", "prefix", "continue"]), nil, [.worker],
            "How an answer is continued (else none; dashscope: partial)."),
        Setting("SLUICE_UPSTREAMS_FILE", .file, nil, [.worker], "YAML or JSON with a list of upstreams, instead of the one above."),
        Setting(
            "SLUICE_UPSTREAM_CA_FILE", .file, nil, [.worker], "PEM file of the authorities to trust for upstreams (else the system's)."),
        Setting("SLUICE_UPSTREAM_HTTP2", .flag, "off", [.worker], "Speak HTTP/2 to upstreams that offer it."),

        // Speech.
        Setting("SLUICE_SPEECH_KIND", .choice(["openai", "dashscope"]), nil, [.worker], "What the speech upstream speaks (else openai)."),
        Setting("SLUICE_SPEECH_URL", .url(["http", "https"]), nil, [.worker], "The speech upstream."),
        Setting("SLUICE_SPEECH_KEY", .text, nil, [.worker], isSecret: true, "Its key."),
        Setting("SLUICE_SPEECH_MODEL", .text, nil, [.worker], "Its model, unless the job names one."),
        Setting("SLUICE_SPEECH_VOICE", .text, nil, [.worker], "Its voice, unless the job names one."),
        Setting(
            "SLUICE_SPEECH_CONCURRENCY", .integer(1...100_000), "256", [.worker],
            "Sentences that a worker has synthesized at once; others wait."),

        // Gateway.
        Setting("SLUICE_LISTEN", .address, "127.0.0.1:8080", [.gateway, .chat], "Where the gateway listens."),
        Setting("SLUICE_GATEWAY_NAME", .text, nil, [.gateway], "The gateway's name in Redis (else host-pid-random)."),
        Setting("SLUICE_AUTH", .choice(["none"]), nil, [.gateway], "none: everybody may come in, from this machine only."),
        Setting("SLUICE_AUTH_NONE_ANYWHERE", .flag, "off", [.gateway], "Allow SLUICE_AUTH=none on other addresses than loopback."),
        Setting("SLUICE_API_KEYS", .list, nil, [.gateway], isSecret: true, "tenant:key, … with keys of at least 16 bytes."),
        Setting("SLUICE_API_KEYS_FILE", .file, nil, [.gateway], "A file of tenant:key lines."),
        Setting("SLUICE_JWT_KEY_FILE", .file, nil, [.gateway], "The key that tokens are signed with."),
        Setting("SLUICE_JWT_JWKS_FILE", .file, nil, [.gateway], "The keys that tokens are signed with, as a JSON Web Key Set."),
        Setting("SLUICE_JWT_ISSUER", .text, nil, [.gateway], "The iss that a token must have."),
        Setting("SLUICE_JWT_AUDIENCE", .text, nil, [.gateway], "The aud that a token must have."),
        Setting("SLUICE_JWT_REQUIRE_EXP", .flag, "on", [.gateway], "Refuse tokens without exp, which would be valid for ever."),
        Setting("SLUICE_ACCOUNTS_FILE", .file, nil, [.gateway], "A file of lines tenant:account:hash (bcrypt or scrypt)."),
        Setting("SLUICE_ADMIN_KEY", .text, nil, [.gateway], isSecret: true, "Opens the dashboard and its actions (unset: off)."),
        Setting(
            "SLUICE_VIEWER_KEY", .text, nil, [.gateway], isSecret: true, "Opens the dashboard without its actions (unset: off)."),
        Setting("SLUICE_ALLOWED_ORIGINS", .list, nil, [.gateway], "Origins that browsers may connect from (unset: the same host)."),
        Setting(
            "SLUICE_GRACE", .duration(.zero ... .seconds(3_600)), "10s", [.gateway],
            "How long a lost socket's requests wait for their client."),
        Setting(
            "SLUICE_HEARTBEAT", .duration(.milliseconds(100) ... .seconds(3_600)), "25s", [.gateway], "Between two heartbeats on a socket."),
        Setting(
            "SLUICE_SESSION_TIMEOUT", .duration(.seconds(1)...(day * 30)), "1h", [.gateway],
            "A session ends so long after its last request."),
        Setting(
            "SLUICE_SESSION_WARNING", .duration(.zero...(day * 30)), "5m", [.gateway],
            "How long before a session's end its client is warned; at most half of its time."),
        Setting("SLUICE_HISTORY_TURNS", .integer(0...1_000), "20", [.gateway], "Turns that a session remembers (0: none)."),
        Setting(
            "SLUICE_HISTORY_MAX", .size(0...(16 << 20)), "256KiB", [.gateway], "Bytes that a session remembers; the oldest turns go first."),
        Setting(
            "SLUICE_HANDSHAKE_TIMEOUT", .duration(.milliseconds(10) ... .seconds(600)), "5s", [.gateway],
            "From the connection to the head of its first request."),
        Setting(
            "SLUICE_BODY_TIMEOUT", .duration(.milliseconds(10) ... .seconds(3_600)), "30s", [.gateway],
            "For the body of an HTTP request; then 408."),
        Setting(
            "SLUICE_DRAIN_NOTICE", .duration(.zero ... .seconds(3_600)), "2s", [.gateway],
            "How long a drain lasts at least, so that probes see it; at most SLUICE_DRAIN_TIMEOUT."),
        Setting(
            "SLUICE_REGISTER_TIMEOUT", .duration(.milliseconds(10) ... .seconds(600)), "10s", [.gateway],
            "From the upgrade to REGISTER; then close 4408."),
        Setting(
            "SLUICE_MAX_MESSAGE", .size(1_024...(64 << 20)), "1MiB", [.gateway], "The longest message of a client; beyond it close 1009."),
        Setting("SLUICE_MAX_JSON_DEPTH", .integer(4...1_000), "32", [.gateway], "How deep a message's JSON may be nested."),
        Setting("SLUICE_MAX_HEADER", .size(1_024...(1 << 20)), "16KiB", [.gateway], "Bytes of a request's head."),
        Setting("SLUICE_MAX_OUTGOING", .size(4_096...(1 << 30)), "1MB", [.gateway], "Unsent bytes of one socket; beyond it close 4430."),
        Setting(
            "SLUICE_MAX_UNSENT_BYTES_PER_TENANT", .size(0...(1 << 40)), "64MiB", [.gateway],
            "Unsent bytes of all connections of one tenant (0: no limit); beyond it the one that is written to is closed."),
        Setting("SLUICE_MAX_REQUESTS", .integer(1...100_000), "64", [.gateway], "Running requests of one session."),
        Setting(
            "SLUICE_MAX_REQUESTS_PER_TENANT", .integer(0...1_000_000), "10000", [.gateway],
            "Running requests of one tenant on one gateway (0: no limit); beyond it RATE_LIMITED or 429."),
        Setting(
            "SLUICE_MAX_STREAMS_PER_TENANT", .integer(0...1_000_000), "1000", [.gateway],
            "Event streams of one tenant on one gateway (0: no limit); beyond it 429."),
        Setting(
            "SLUICE_MAX_HTTP_REQUESTS_PER_TENANT", .integer(0...1_000_000), "1000", [.gateway],
            "HTTP requests of one tenant that wait for their answer, completions and streams not counted (0: no limit); beyond it 429."),
        Setting(
            "SLUICE_MAX_BODY_BYTES_PER_TENANT", .size(0...(16 << 30)), "16MiB", [.gateway],
            "Bytes of request bodies held for one tenant on one gateway (0: no limit); beyond it 429."),
        Setting(
            "SLUICE_MAX_MESSAGES_PER_SECOND", .integer(0...1_000_000), "20000", [.gateway],
            "Frames of one socket a second (0: no limit); beyond it close 4429."),
        Setting(
            "SLUICE_MAX_BYTES_PER_SECOND", .size(0...(1 << 40)), "32MiB", [.gateway],
            "Bytes a second that one tenant's sockets may make a gateway read and write (0: no limit); beyond it they are read more slowly."
        ),
        Setting(
            "SLUICE_MAX_BYTES_PER_TENANT", .size(0...(1 << 40)), "64MiB", [.gateway],
            "Bytes of one tenant's messages that a gateway holds (0: no limit); beyond it RATE_LIMITED."),
        Setting("SLUICE_SESSION_MAX", .size(1_024...(16 << 20)), "64KiB", [.gateway], "Bytes of one session's settings as JSON."),
        Setting(
            "SLUICE_MAX_SESSIONS_PER_TENANT", .integer(0...100_000_000), "100000", [.gateway],
            "Sessions of one tenant in Redis (0: no limit); beyond it RATE_LIMITED."),
        Setting(
            "SLUICE_MAX_SESSION_BYTES_PER_TENANT", .size(0...(1 << 40)), "256MiB", [.gateway],
            "Bytes of one tenant's sessions in Redis (0: no limit); beyond it RATE_LIMITED."),
        Setting("SLUICE_MAX_SOCKETS", .integer(1...1_000_000), "10000", [.gateway], "WebSockets of one gateway."),
        Setting(
            "SLUICE_MAX_SOCKETS_PER_TENANT", .integer(0...1_000_000), nil, [.gateway],
            "WebSockets of one tenant (else half of SLUICE_MAX_SOCKETS; 0: no limit)."),
        Setting(
            "SLUICE_MAX_SOCKETS_PER_ADDRESS", .integer(0...1_000_000), nil, [.gateway],
            "WebSockets of one address (else a quarter of SLUICE_MAX_SOCKETS; 0: no limit, as behind a proxy)."),
        Setting("SLUICE_TLS_CERTIFICATE_FILE", .file, nil, [.gateway], "PEM file of the listener's certificate and those above it."),
        Setting("SLUICE_TLS_KEY_FILE", .file, nil, [.gateway], "PEM file of the certificate's key."),

        // Commands.
        Setting("SLUICE_API_KEY", .text, nil, [.chat], isSecret: true, "The key with which sluice chat comes in."),

        // Logs.
        Setting(
            "SLUICE_LOG_LEVEL", .choice(["trace", "debug", "info", "notice", "warning", "error", "critical"]), "info",
            [.gateway, .worker, .simulator], "What is logged, to standard error."),
        Setting("SLUICE_LOG_FORMAT", .choice(["text", "json"]), "text", [.gateway, .worker, .simulator], "How a log line is written."),
    ]

    private static let byName = Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })

    static func named(_ name: String) -> Setting? { byName[name] }

    /// The setting's name that needs the fewest changes, if they are few.
    static func nearest(to name: String) -> String? {
        all.map { ($0.name, distance($0.name, name.uppercased())) }.min { $0.1 < $1.1 }.flatMap { $0.1 <= 4 ? $0.0 : nil }
    }

    /// Insertions, removals and replacements that lead from one to the other (Levenshtein).
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
