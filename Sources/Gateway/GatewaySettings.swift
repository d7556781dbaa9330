/// What a gateway can be told. The names in brackets are those of the settings that fill it; sizes are bytes.
package struct GatewaySettings: Sendable {
    /// Where it listens (`SLUICE_LISTEN`, default 127.0.0.1:8080). Port 0 takes a free one.
    package var host = "127.0.0.1"
    package var port = 8080
    /// Its name in records and heartbeats (`SLUICE_GATEWAY_NAME`, default host-pid-random); unique in the deployment.
    package var name = "gateway"
    /// What the heartbeat says it runs.
    package var version = "dev"

    /// Between two HEARTBEAT messages; a socket that is silent for two of them is closed with 4432 (`SLUICE_HEARTBEAT`, 25 s).
    package var heartbeat: Duration = .seconds(25)
    /// How long the requests of a lost socket run on (`SLUICE_GRACE`, 10 s).
    package var grace: Duration = .seconds(10)
    /// How long a session lives without a REQUEST (`SLUICE_SESSION_TIMEOUT`, 1 h).
    package var sessionTimeout: Duration = .seconds(3600)
    /// How long before that SESSION_WARN is sent (`SLUICE_SESSION_WARNING`, 5 min; never more than half of the session's timeout).
    package var sessionWarning: Duration = .seconds(300)
    /// How long a drain waits for running requests (`SLUICE_DRAIN_TIMEOUT`, 25 s).
    package var drainTimeout: Duration = .seconds(25)
    /// How long a drain lasts at least, so that a balancer's probe finds `/readyz` red and not a closed port (`SLUICE_DRAIN_NOTICE`, 2 s;
    /// never longer than its timeout).
    package var drainNotice: Duration = .seconds(2)
    /// For the whole upgrade, from accept to the request's head (`SLUICE_HANDSHAKE_TIMEOUT`, 5 s).
    package var handshakeTimeout: Duration = .seconds(5)
    /// For the body of an HTTP request (`SLUICE_BODY_TIMEOUT`, 30 s); then 408.
    package var bodyTimeout: Duration = .seconds(30)
    /// From the upgrade to REGISTER (`SLUICE_REGISTER_TIMEOUT`, 10 s); then close 4408.
    package var registerTimeout: Duration = .seconds(10)
    /// A dead gateway is noticed after this long (`SLUICE_LEASE`, 15 s); its heartbeat is written three times in it.
    package var lease: Duration = .seconds(15)

    /// Of one message, all its fragments together (`SLUICE_MAX_MESSAGE`, 1 MiB); beyond it close 1009.
    package var messageMaximum = 1 << 20
    /// How deep the JSON of a message may be nested (`SLUICE_MAX_JSON_DEPTH`, 32).
    package var jsonDepthMaximum = 32
    /// Bytes of a request's head (`SLUICE_MAX_HEADER`, 16 KiB).
    package var headerMaximum = 16 << 10
    /// Unsent bytes of one socket beyond which it is closed with 4430 (`SLUICE_MAX_OUTGOING`, 1 MB).
    package var outgoingMaximum = 1_000_000
    /// Bytes that all clients of one tenant leave unread in their sockets, event streams and completions; beyond it the connection that is
    /// written to is closed with 4430 or cut (`SLUICE_MAX_UNSENT_BYTES_PER_TENANT`, 64 MiB; 0: no limit).
    package var unsentBytesPerTenant = 64 << 20
    /// Turns of conversation that a session remembers (`SLUICE_HISTORY_TURNS`, 20; 0: none).
    package var historyTurns = 20
    /// Bytes of a session's history; the oldest turns go first (`SLUICE_HISTORY_MAX`, 256 KiB).
    package var historyMaximum = 256 << 10
    /// Bytes of one session's settings as JSON: prompts, scene, functions (`SLUICE_SESSION_MAX`, 64 KiB).
    package var sessionMaximum = 64 << 10
    /// Running requests of one session (`SLUICE_MAX_REQUESTS`, 64).
    package var requestsPerSocket = 64
    /// Running requests of one tenant on this gateway, chat completions included (`SLUICE_MAX_REQUESTS_PER_TENANT`, 10,000; 0: no limit).
    package var requestsPerTenant = 10_000
    /// Event streams (`GET /v1/jobs/<id>/events`) of one tenant on this gateway (`SLUICE_MAX_STREAMS_PER_TENANT`, 1,000; 0: no limit).
    package var streamsPerTenant = 1_000
    /// HTTP requests of one tenant that wait for their answer, completions that run and streams not counted
    /// (`SLUICE_MAX_HTTP_REQUESTS_PER_TENANT`, 1,000; 0: no limit).
    package var httpRequestsPerTenant = 1_000
    /// Bytes of request bodies that are held for one tenant (`SLUICE_MAX_BODY_BYTES_PER_TENANT`, 16 MiB; 0: no limit).
    package var bodyBytesPerTenant = 16 << 20
    /// Frames of one socket a second, of which it may save up one second's worth; beyond it close 4429 (`SLUICE_MAX_MESSAGES_PER_SECOND`,
    /// 20,000, so that a client that asks as fast as it is answered stays below; 0: no limit).
    package var messagesPerSecond = 20_000
    /// Bytes a second that one tenant's sockets may make this gateway work on: received, parsed, and written because of them; 512 more a
    /// frame. Beyond it they are read more slowly (`SLUICE_MAX_BYTES_PER_SECOND`, 32 MiB; 0: no limit). The sockets of one address that are
    /// not registered have as much.
    package var bytesPerSecond = 32 << 20
    /// Bytes of one tenant that this gateway holds: messages that came in part, requests that wait for Redis, texts of running requests
    /// (`SLUICE_MAX_BYTES_PER_TENANT`, 64 MiB; 0: no limit).
    package var heldBytesPerTenant = 64 << 20
    /// Sessions of one tenant in Redis, over all gateways (`SLUICE_MAX_SESSIONS_PER_TENANT`, 100,000; 0: no limit), and their bytes
    /// (`SLUICE_MAX_SESSION_BYTES_PER_TENANT`, 256 MiB; 0: no limit).
    package var sessionsPerTenant = 100_000
    package var sessionBytesPerTenant = 256 << 20
    /// WebSockets of this node (`SLUICE_MAX_SOCKETS`, 10,000), of one tenant (`SLUICE_MAX_SOCKETS_PER_TENANT`; nil: half of them) and of
    /// one address (`SLUICE_MAX_SOCKETS_PER_ADDRESS`; nil: a quarter of them); 0: no limit. Behind a proxy all clients have its address.
    package var socketsMaximum = 10_000
    package var socketsPerTenant: Int?
    package var socketsPerAddress: Int?
    /// WebSockets of one address; 0: no limit.
    var addressShare: Int { socketsPerAddress ?? max(1, socketsMaximum / 4) }
    /// Exact origins that may open a WebSocket (`SLUICE_ALLOWED_ORIGINS`); nil: only the request's own host. A request without one is no
    /// browser's.
    package var allowedOrigins: [String]?

    /// PEM files of the listener's certificate chain and key (`SLUICE_TLS_CERTIFICATE_FILE`, `SLUICE_TLS_KEY_FILE`); both or none.
    package var tlsCertificateFile: String?
    package var tlsKeyFile: String?

    /// What `GET /v1/models` lists: the model of a request that names none (`SLUICE_DEFAULT_MODEL`). Which others there are only workers
    /// know.
    package var defaultModel = "qwen-plus"

    /// Who may come in.
    package var authentication = AuthenticationSettings()

    package init() {}
}
