import Gateway
import Observability
import OperatorTools
import Support

extension SettingsReader {
    /// The gateway's settings; unset ones keep the defaults of `GatewaySettings`.
    mutating func gateway() -> GatewaySettings {
        var gateway = GatewaySettings()
        if let address = address("SLUICE_LISTEN") {
            gateway.host = address.host
            gateway.port = address.port
        }
        gateway.name = nodeName("SLUICE_GATEWAY_NAME")
        gateway.version = BuildInformation.version
        readTimes(into: &gateway)
        readLimits(into: &gateway)
        if let model = text("SLUICE_DEFAULT_MODEL") { gateway.defaultModel = model }
        let origins = list("SLUICE_ALLOWED_ORIGINS")
        for origin in origins where !OriginRule.isOrigin(origin) {
            fault(
                "SLUICE_ALLOWED_ORIGINS", "\(origin) is not an origin",
                "write origins such as https://chat.example.com, separated by commas")
        }
        gateway.allowedOrigins = origins.isEmpty ? nil : origins
        let paths = list("SLUICE_WEBSOCKET_PATHS")
        for path in paths where !path.hasPrefix("/") || path.contains(where: { $0 == "?" || $0 == "#" || $0.isWhitespace }) {
            fault("SLUICE_WEBSOCKET_PATHS", "\(path) is not a path", "write paths such as /ws/agent/stream, separated by commas")
        }
        if !paths.isEmpty { gateway.webSocketPaths = paths }
        if let rate = integer("SLUICE_VOICE_RATE") { gateway.voiceRate = rate }
        gateway.recognizes = text("SLUICE_RECOGNITION_URL") != nil
        gateway.retrieves = text("SLUICE_RETRIEVAL_URL") != nil
        if let maximum = integer("SLUICE_MAX_AUDIO") { gateway.audioMaximum = maximum }
        gateway.tlsCertificateFile = text("SLUICE_TLS_CERTIFICATE_FILE")
        gateway.tlsKeyFile = text("SLUICE_TLS_KEY_FILE")
        for (one, other) in [
            ("SLUICE_TLS_CERTIFICATE_FILE", "SLUICE_TLS_KEY_FILE"), ("SLUICE_TLS_KEY_FILE", "SLUICE_TLS_CERTIFICATE_FILE"),
        ] where source.value(one) != nil && source.value(other) == nil {
            fault(one, "it is set without \(other)", "set both or neither")
        }
        gateway.authentication = authentication(host: gateway.host)
        return gateway
    }

    /// Reads the timeouts and intervals.
    private mutating func readTimes(into gateway: inout GatewaySettings) {
        if let value = duration("SLUICE_HEARTBEAT") { gateway.heartbeat = value }
        if let value = duration("SLUICE_GRACE") { gateway.grace = value }
        if let value = duration("SLUICE_SESSION_TIMEOUT") { gateway.sessionTimeout = value }
        if let value = duration("SLUICE_RESPONSE_TTL") { gateway.responseTTL = value }
        if let value = duration("SLUICE_SESSION_WARNING") { gateway.sessionWarning = value }
        if let value = duration("SLUICE_DRAIN_TIMEOUT") { gateway.drainTimeout = value }
        if let value = duration("SLUICE_HANDSHAKE_TIMEOUT") { gateway.handshakeTimeout = value }
        if let value = duration("SLUICE_BODY_TIMEOUT") { gateway.bodyTimeout = value }
        if let value = duration("SLUICE_DRAIN_NOTICE") { gateway.drainNotice = value }
        if let value = duration("SLUICE_REGISTER_TIMEOUT") { gateway.registerTimeout = value }
        if let value = duration("SLUICE_LEASE") { gateway.lease = value }
    }

    /// Reads the limits of sizes, counts and rates.
    private mutating func readLimits(into gateway: inout GatewaySettings) {
        if let value = integer("SLUICE_MAX_MESSAGE") { gateway.messageMaximum = value }
        if let value = integer("SLUICE_MAX_BODY") { gateway.bodyMaximum = value }
        if let value = text("SLUICE_FINISH_REASON_INTERRUPTED") { gateway.interruptedFinishReason = value }
        if let value = integer("SLUICE_MAX_JSON_DEPTH") { gateway.jsonDepthMaximum = value }
        if let value = integer("SLUICE_MAX_HEADER") { gateway.headerMaximum = value }
        if let value = integer("SLUICE_MAX_OUTGOING") { gateway.outgoingMaximum = value }
        if let value = integer("SLUICE_MAX_UNSENT_BYTES_PER_TENANT") { gateway.unsentBytesPerTenant = value }
        if let value = integer("SLUICE_HISTORY_TURNS") { gateway.historyTurns = value }
        if let value = integer("SLUICE_HISTORY_MAX") { gateway.historyMaximum = value }
        if let value = integer("SLUICE_MAX_REQUESTS") { gateway.requestsPerSocket = value }
        if let value = integer("SLUICE_MAX_REQUESTS_PER_TENANT") { gateway.requestsPerTenant = value }
        if let value = integer("SLUICE_MAX_STREAMS_PER_TENANT") { gateway.streamsPerTenant = value }
        if let value = integer("SLUICE_MAX_HTTP_REQUESTS_PER_TENANT") { gateway.httpRequestsPerTenant = value }
        if let value = integer("SLUICE_MAX_BODY_BYTES_PER_TENANT") { gateway.bodyBytesPerTenant = value }
        if let value = integer("SLUICE_MAX_MESSAGES_PER_SECOND") { gateway.messagesPerSecond = value }
        if let value = integer("SLUICE_MAX_SOCKETS") { gateway.socketsMaximum = value }
        gateway.socketsPerTenant = integer("SLUICE_MAX_SOCKETS_PER_TENANT")
        gateway.socketsPerAddress = integer("SLUICE_MAX_SOCKETS_PER_ADDRESS")
        if let value = integer("SLUICE_MAX_BYTES_PER_SECOND") { gateway.bytesPerSecond = value }
        if let value = integer("SLUICE_MAX_BYTES_PER_TENANT") { gateway.heldBytesPerTenant = value }
        if let value = integer("SLUICE_SESSION_MAX") { gateway.sessionMaximum = value }
        if let value = integer("SLUICE_MAX_SESSIONS_PER_TENANT") { gateway.sessionsPerTenant = value }
        if let value = integer("SLUICE_MAX_RESPONSE_BYTES_PER_TENANT") { gateway.responseBytesPerTenant = value }
        if let value = integer("SLUICE_MAX_SESSION_BYTES_PER_TENANT") { gateway.sessionBytesPerTenant = value }
    }

    /// The authentication settings.
    /// - Parameter host: the listen address, which decides whether `SLUICE_AUTH=none` is allowed.
    private mutating func authentication(host: String) -> AuthenticationSettings {
        var settings = AuthenticationSettings()
        settings.apiKeys = text("SLUICE_API_KEYS")
        settings.apiKeysFile = text("SLUICE_API_KEYS_FILE")
        settings.jwtKeyFile = text("SLUICE_JWT_KEY_FILE")
        settings.jwtJWKSFile = text("SLUICE_JWT_JWKS_FILE")
        settings.jwtIssuer = text("SLUICE_JWT_ISSUER")
        settings.jwtAudience = text("SLUICE_JWT_AUDIENCE")
        settings.jwtRequiresExpiration = flag("SLUICE_JWT_REQUIRE_EXP")
        settings.accountsFile = text("SLUICE_ACCOUNTS_FILE")
        settings.none = text("SLUICE_AUTH") == "none"
        settings.noneAnywhere = flag("SLUICE_AUTH_NONE_ANYWHERE")
        settings.adminKey = text("SLUICE_ADMIN_KEY")
        settings.viewerKey = text("SLUICE_VIEWER_KEY")
        settings.listensOnLoopback = AuthenticationSettings.isLoopback(host)
        return settings
    }
}

extension SettingsReader {
    /// The settings of the authentication methods; at least one of them must be set.
    static let authenticationMethods = [
        "SLUICE_API_KEYS", "SLUICE_API_KEYS_FILE", "SLUICE_JWT_KEY_FILE", "SLUICE_JWT_JWKS_FILE", "SLUICE_ACCOUNTS_FILE", "SLUICE_AUTH",
    ]

    /// Adds a fault when no authentication method is set. Without this a gateway would reject every client, or accept all by mistake.
    mutating func requireAuthentication(_ gateway: GatewaySettings) {
        guard Self.authenticationMethods.contains(where: { source.value($0) != nil }) else {
            return fault(
                nil, "no authentication method is set",
                "set SLUICE_API_KEYS=tenant:key (or one of \(Self.authenticationMethods.dropFirst().dropLast().joined(separator: ", "))), or SLUICE_AUTH=none to accept clients of this machine without a key"
            )
        }
        checkAuthentication(gateway)
    }

    /// Parses keys, accounts and tokens' settings as the gateway will, and adds a fault when that fails.
    mutating func checkAuthentication(_ gateway: GatewaySettings) {
        do { _ = try Authenticator(settings: gateway.authentication, logger: .silent) } catch {
            // An unreadable file is reported already. A missing method is an error for gateways only, not for `config check`.
            guard error.code != .unreadableFile, error.code != .noMethod else { return }
            fault(nil, error.message, "")
        }
    }
}
