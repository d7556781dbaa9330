/// Settings of a gateway. The environment variables that set them are in brackets, with their defaults. Sizes are in bytes.
package struct GatewaySettings: Sendable {
    /// Listening address (`SLUICE_LISTEN`, default 127.0.0.1:8080). Port 0 selects a free port.
    package var host = "127.0.0.1"
    package var port = 8080
    /// Name in records and heartbeats (`SLUICE_GATEWAY_NAME`, default host-pid-random). Must be unique in the deployment.
    package var name = "gateway"
    /// Software version that the heartbeat reports.
    package var version = "dev"

    /// Interval between HEARTBEAT messages (`SLUICE_HEARTBEAT`, 25 s). A socket that sends nothing for two intervals is closed with 4432.
    package var heartbeat: Duration = .seconds(25)
    /// How long requests continue to run after their client disconnected (`SLUICE_GRACE`, 10 s).
    package var grace: Duration = .seconds(10)
    /// Time from the last REQUEST to the expiry of a session (`SLUICE_SESSION_TIMEOUT`, 1 h).
    package var sessionTimeout: Duration = .seconds(3600)
    /// Time from SESSION_WARN to the expiry of a session (`SLUICE_SESSION_WARNING`, 5 min; at most half of the session timeout).
    package var sessionWarning: Duration = .seconds(300)
    /// Maximum time that a drain waits for running requests (`SLUICE_DRAIN_TIMEOUT`, 25 s).
    package var drainTimeout: Duration = .seconds(25)
    /// Minimum duration of a drain (`SLUICE_DRAIN_NOTICE`, 2 s; at most the drain timeout). Load balancers see `/readyz` fail before the
    /// port closes.
    package var drainNotice: Duration = .seconds(2)
    /// Timeout from accepting a connection to the end of the request head, TLS included (`SLUICE_HANDSHAKE_TIMEOUT`, 5 s).
    package var handshakeTimeout: Duration = .seconds(5)
    /// Timeout for the body of an HTTP request (`SLUICE_BODY_TIMEOUT`, 30 s). The response is 408.
    package var bodyTimeout: Duration = .seconds(30)
    /// Timeout from the upgrade to REGISTER (`SLUICE_REGISTER_TIMEOUT`, 10 s). The close code is 4408.
    package var registerTimeout: Duration = .seconds(10)
    /// Expiry of a gateway's heartbeat key (`SLUICE_LEASE`, 15 s). It is renewed three times in this period.
    package var lease: Duration = .seconds(15)

    /// Maximum size of one message with all its fragments (`SLUICE_MAX_MESSAGE`, 1 MiB). The close code is 1009.
    package var messageMaximum = 1 << 20
    /// Maximum size of the body of a request to `/v1/*`, decompressed (`SLUICE_MAX_BODY`, 8 MiB). The response is 413.
    package var bodyMaximum = 8 << 20
    /// Maximum nesting depth of the JSON of a message (`SLUICE_MAX_JSON_DEPTH`, 32).
    package var jsonDepthMaximum = 32
    /// Maximum size of an HTTP request head (`SLUICE_MAX_HEADER`, 16 KiB).
    package var headerMaximum = 16 << 10
    /// How long the head of a streamed completion waits for a failure that can be reported as an HTTP status. Afterwards the head is sent, so
    /// that proxies see an answer before the first token.
    var streamHeadDelay: Duration = .milliseconds(250)
    /// The `finish_reason` of an interrupted chat completion (`SLUICE_FINISH_REASON_INTERRUPTED`): `stop`, which strict clients know, or
    /// `interrupted`.
    package var interruptedFinishReason = "stop"
    /// Maximum unsent bytes of one socket (`SLUICE_MAX_OUTGOING`, 1 MB). The close code is 4430.
    package var outgoingMaximum = 1_000_000
    /// Maximum bytes that all clients of one tenant leave unread in their sockets, event streams and completions
    /// (`SLUICE_MAX_UNSENT_BYTES_PER_TENANT`, 64 MiB; 0: no limit). Beyond it the connection being written to is closed with 4430 or cut.
    package var unsentBytesPerTenant = 64 << 20
    /// Maximum turns of conversation in a session's history (`SLUICE_HISTORY_TURNS`, 20; 0: no history).
    package var historyTurns = 20
    /// Maximum size of a session's history (`SLUICE_HISTORY_MAX`, 256 KiB). The oldest turns are dropped first.
    package var historyMaximum = 256 << 10
    /// Maximum size of a session's settings as JSON: prompts, scene, functions (`SLUICE_SESSION_MAX`, 64 KiB).
    package var sessionMaximum = 64 << 10
    /// Maximum running requests per session (`SLUICE_MAX_REQUESTS`, 64).
    package var requestsPerSocket = 64
    /// Maximum running requests per tenant on this gateway, chat completions included (`SLUICE_MAX_REQUESTS_PER_TENANT`, 10,000;
    /// 0: no limit).
    package var requestsPerTenant = 10_000
    /// Maximum event streams (`GET /v1/jobs/<id>/events`) per tenant on this gateway (`SLUICE_MAX_STREAMS_PER_TENANT`, 1,000;
    /// 0: no limit).
    package var streamsPerTenant = 1_000
    /// Maximum HTTP requests in progress per tenant, without running completions and event streams
    /// (`SLUICE_MAX_HTTP_REQUESTS_PER_TENANT`, 1,000; 0: no limit).
    package var httpRequestsPerTenant = 1_000
    /// Maximum bytes of HTTP request bodies in memory per tenant (`SLUICE_MAX_BODY_BYTES_PER_TENANT`, 16 MiB; 0: no limit).
    package var bodyBytesPerTenant = 16 << 20
    /// Maximum frames per second per socket, as a token bucket that holds one second's worth (`SLUICE_MAX_MESSAGES_PER_SECOND`, 20,000;
    /// 0: no limit). The close code is 4429. The default is above what a client reaches that waits for each answer.
    package var messagesPerSecond = 20_000
    /// Maximum bytes per second that this gateway processes for the sockets of one tenant: received, parsed, and written in consequence,
    /// plus 512 per frame (`SLUICE_MAX_BYTES_PER_SECOND`, 32 MiB; 0: no limit). Above it their sockets are read more slowly. The
    /// unregistered sockets of one address have the same limit.
    package var bytesPerSecond = 32 << 20
    /// Maximum bytes in memory per tenant: incomplete messages, requests waiting for Redis, texts of running requests
    /// (`SLUICE_MAX_BYTES_PER_TENANT`, 64 MiB; 0: no limit).
    package var heldBytesPerTenant = 64 << 20
    /// Maximum sessions per tenant in Redis, across all gateways (`SLUICE_MAX_SESSIONS_PER_TENANT`, 100,000; 0: no limit).
    package var sessionsPerTenant = 100_000
    /// Maximum bytes of a tenant's sessions in Redis, across all gateways (`SLUICE_MAX_SESSION_BYTES_PER_TENANT`, 256 MiB; 0: no limit).
    package var sessionBytesPerTenant = 256 << 20
    /// How long a stored response of the Responses API is kept from its creation (`SLUICE_RESPONSE_TTL`, 24 h).
    package var responseTTL: Duration = .seconds(86_400)
    /// Maximum bytes of a tenant's stored responses and their event logs in Redis, across all gateways
    /// (`SLUICE_MAX_RESPONSE_BYTES_PER_TENANT`, 256 MiB; 0: no limit).
    package var responseBytesPerTenant = 256 << 20
    /// Maximum WebSockets of this gateway (`SLUICE_MAX_SOCKETS`, 10,000).
    package var socketsMaximum = 10_000
    /// Maximum WebSockets per tenant (`SLUICE_MAX_SOCKETS_PER_TENANT`; 0: no limit). Nil: half of `socketsMaximum`.
    package var socketsPerTenant: Int?
    /// Maximum WebSockets per client address (`SLUICE_MAX_SOCKETS_PER_ADDRESS`; 0: no limit). Nil: a quarter of `socketsMaximum`. Behind a
    /// proxy all clients share its address.
    package var socketsPerAddress: Int?
    /// Effective maximum of WebSockets per client address; 0: no limit.
    var addressShare: Int { socketsPerAddress ?? max(1, socketsMaximum / 4) }
    /// Origins that may open a WebSocket and use `/v1/*` (CORS), compared exactly (`SLUICE_ALLOWED_ORIGINS`). Nil: only the request's own host. Requests without
    /// an `Origin` header do not come from a browser and are accepted.
    package var allowedOrigins: [String]?

    /// Paths of the WebSocket (`SLUICE_WEBSOCKET_PATHS`).
    package var webSocketPaths = ["/ws/agent/stream"]
    /// Sample rate of voice frames in Hz, for clients that choose none (`SLUICE_VOICE_RATE`, 16,000; 8,000 to 48,000).
    package var voiceRate = 16_000
    /// Maximum audio of one VOICE request (`SLUICE_MAX_AUDIO`, 4 MiB).
    package var audioMaximum = 4 << 20
    /// Whether the workers have a recognition upstream (`SLUICE_RECOGNITION_URL` is set), so that VOICE requests are accepted.
    package var recognizes = false
    /// Whether the workers have a retrieval upstream (`SLUICE_RETRIEVAL_URL` is set).
    package var retrieves = false

    /// PEM files of the listener's certificate chain and private key (`SLUICE_TLS_CERTIFICATE_FILE`, `SLUICE_TLS_KEY_FILE`). Both or
    /// neither must be set.
    package var tlsCertificateFile: String?
    package var tlsKeyFile: String?

    /// Model of requests that name none (`SLUICE_DEFAULT_MODEL`). `GET /v1/models` lists only this one, because the other models are
    /// configured on workers.
    package var defaultModel = "qwen-plus"

    /// How clients authenticate.
    package var authentication = AuthenticationSettings()

    package init() {}
}
