/// The address and credentials of a Redis server: `redis://user:password@host:6379/0`, `rediss://…` (TLS), `unix:///path?db=0`, or
/// `redis+sentinel://user:password@host:26379,host:26379/service/0` for the primary that the sentinels name, or
/// `redis+cluster://user:password@host:6379,host:6379` for a cluster.
package struct RedisURL: Sendable, Hashable, CustomStringConvertible {
    /// The network address of the server.
    enum Endpoint: Sendable, Hashable {
        case tcp(ServerAddress, tls: Bool)
        case unix(path: String)
        /// `tls`: for the sentinels and the servers.
        case sentinel(service: String, [ServerAddress], tls: Bool)
        /// The nodes that are asked first for the topology.
        case cluster([ServerAddress], tls: Bool)
    }

    let endpoint: Endpoint
    let user: String?
    let password: String?
    let database: Int

    private init(endpoint: Endpoint, user: String? = nil, password: String?) {
        self.endpoint = endpoint
        self.password = password
        self.user = user
        database = 0
    }

    /// Parses a URL.
    /// - Throws: `.invalidURL`. The message never contains a part that may be the password.
    package init(_ text: String) throws(RedisError) {
        guard let separator = text.firstRange(of: "://") else {
            throw Self.invalid("it does not begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
        }
        let scheme = text[..<separator.lowerBound].lowercased()
        let rest = text[separator.upperBound...]
        switch scheme {
        case "redis", "rediss":
            let (authority, path, query) = Self.split(rest)
            guard query == nil else { throw Self.invalid("options after '?' are only supported by unix://") }
            guard !path.contains("@") else {
                throw Self.invalid("a '/', '?' or '#' in the user or password must be percent-encoded (%2F, %3F, %23)")
            }
            let (login, address) = Self.splitLogin(authority)
            (user, password) = try Self.credentials(login)
            endpoint = .tcp(try Self.address(address, port: 6379), tls: scheme == "rediss")
            database = try path.isEmpty || path == "/" ? 0 : Self.database(path.dropFirst())
        case "unix":
            let (authority, path, query) = Self.split(rest)
            let (login, host) = Self.splitLogin(authority)
            guard host.isEmpty, path.count > 1 else { throw Self.invalid("unix:// requires an absolute path: unix:///path/to/redis.sock") }
            (user, password) = try Self.credentials(login)
            let file = try Self.decode(path, "path")
            // sockaddr_un holds 108 bytes including the terminating zero.
            guard file.utf8.count <= 107 else {
                throw Self.invalid("the socket path has \(file.utf8.count) bytes; the maximum is 107")
            }
            endpoint = .unix(path: file)
            if let query {
                guard query.hasPrefix("db=") else { throw Self.invalid("the only option is ?db=<number>") }
                database = try Self.database(query.dropFirst(3))
            } else {
                database = 0
            }
        case "redis+sentinel", "rediss+sentinel":
            let (authority, path, query) = Self.split(rest)
            guard query == nil else { throw Self.invalid("options after '?' are only supported by unix://") }
            guard !path.contains("@") else {
                throw Self.invalid("a '/', '?' or '#' in the user or password must be percent-encoded (%2F, %3F, %23)")
            }
            let (login, addresses) = Self.splitLogin(authority)
            (user, password) = try Self.credentials(login)
            let sentinels = try Self.addresses(addresses, port: 26_379)
            let parts = path.dropFirst().split(separator: "/", omittingEmptySubsequences: false)
            guard let service = parts.first, !service.isEmpty, parts.count <= 2 else {
                throw Self.invalid("the name of the service is missing: \(scheme)://host:port,host:port/service or …/service/database")
            }
            endpoint = .sentinel(service: try Self.decode(service, "service"), sentinels, tls: scheme == "rediss+sentinel")
            database = try parts.count < 2 || parts[1].isEmpty ? 0 : Self.database(parts[1])
        case "redis+cluster", "rediss+cluster":
            let (authority, path, query) = Self.split(rest)
            guard query == nil else { throw Self.invalid("options after '?' are only supported by unix://") }
            guard !path.contains("@") else {
                throw Self.invalid("a '/', '?' or '#' in the user or password must be percent-encoded (%2F, %3F, %23)")
            }
            // The message does not quote the path, which may be a part of the password.
            guard path.isEmpty || path == "/" else { throw Self.invalid("a cluster has no databases: \(scheme)://host:port,host:port") }
            let (login, addresses) = Self.splitLogin(authority)
            (user, password) = try Self.credentials(login)
            endpoint = .cluster(try Self.addresses(addresses, port: 6379), tls: scheme == "rediss+cluster")
            database = 0
        default:
            throw Self.invalid("the scheme must be redis(s)://, unix://, redis(s)+sentinel:// or redis(s)+cluster://")
        }
    }

    /// The URL without the password.
    package var description: String {
        let login = user.map { $0 + "@" } ?? ""
        switch endpoint {
        case .tcp(let address, let tls):
            return "\(tls ? "rediss" : "redis")://\(login)\(address)/\(database)"
        case .unix(let path):
            return "unix://\(login)\(path)\(database == 0 ? "" : "?db=\(database)")"
        case .sentinel(let service, let sentinels, let tls):
            let addresses = sentinels.map(\.description).joined(separator: ",")
            return "\(tls ? "rediss" : "redis")+sentinel://\(login)\(addresses)/\(service)/\(database)"
        case .cluster(let nodes, let tls):
            return "\(tls ? "rediss" : "redis")+cluster://\(login)\(nodes.map(\.description).joined(separator: ","))"
        }
    }

    /// Whether the URL is that of a cluster.
    package var isCluster: Bool { if case .cluster = endpoint { true } else { false } }

    /// The nodes of a cluster that the URL names; empty for other URLs.
    var seeds: [ServerAddress] { if case .cluster(let nodes, _) = endpoint { nodes } else { [] } }

    /// The URL of one node of a cluster, with the same login.
    func node(_ address: ServerAddress) -> RedisURL {
        RedisURL(endpoint: .tcp(address, tls: usesTLS), user: user, password: password)
    }

    var usesTLS: Bool {
        switch endpoint {
        case .tcp(_, let tls), .sentinel(_, _, let tls), .cluster(_, let tls): tls
        case .unix: false
        }
    }

    /// The sentinels' own URLs; empty without sentinels.
    func sentinels(password: String?) -> [RedisURL] {
        guard case .sentinel(_, let addresses, let tls) = endpoint else { return [] }
        return addresses.map { RedisURL(endpoint: .tcp($0, tls: tls), password: password) }
    }

    private static func invalid(_ reason: String) -> RedisError {
        RedisError(.invalidURL, "not a Redis URL: \(reason)")
    }

    /// Splits into authority, path with its '/' and query without its '?'.
    private static func split(_ text: Substring) -> (Substring, Substring, Substring?) {
        let authority = text.prefix { $0 != "/" && $0 != "?" && $0 != "#" }
        let rest = text[authority.endIndex...]
        guard let mark = rest.firstIndex(of: "?") else { return (authority, rest, nil) }
        return (authority, rest[..<mark], rest[rest.index(after: mark)...])
    }

    /// Splits at the last '@', so that an unencoded one in the password is accepted.
    private static func splitLogin(_ authority: Substring) -> (login: Substring?, address: Substring) {
        guard let at = authority.lastIndex(of: "@") else { return (nil, authority) }
        return (authority[..<at], authority[authority.index(after: at)...])
    }

    /// Decodes `user:password` or `:password`; (nil, nil) without a login.
    private static func credentials(_ login: Substring?) throws(RedisError) -> (user: String?, password: String?) {
        guard let login, !login.isEmpty else { return (nil, nil) }
        guard let colon = login.firstIndex(of: ":") else {
            throw invalid("write the login as user:password@, or as :password@ without a user")
        }
        let user = try decode(login[..<colon], "user")
        let password = try decode(login[login.index(after: colon)...], "password")
        guard !password.isEmpty else {
            guard user.isEmpty else { throw invalid("the password is empty") }
            return (nil, nil)
        }
        return (user.isEmpty ? nil : user, password)
    }

    /// Decodes addresses separated by commas.
    private static func addresses(_ text: Substring, port standard: Int) throws(RedisError) -> [ServerAddress] {
        var addresses: [ServerAddress] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) { addresses.append(try address(part, port: standard)) }
        return addresses
    }

    /// Decodes `host`, `host:port` or `[IPv6 address]:port`.
    /// - Parameter standard: the port if the text has none.
    private static func address(_ text: Substring, port standard: Int) throws(RedisError) -> ServerAddress {
        var host = text
        var port: Substring?
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { throw invalid("the ']' after an IPv6 address is missing") }
            host = text[text.index(after: text.startIndex)..<end]
            let rest = text[text.index(after: end)...]
            guard host.contains(":"), rest.isEmpty || rest.hasPrefix(":") else {
                throw invalid("an IPv6 address is written [address]:port")
            }
            port = rest.isEmpty ? nil : rest.dropFirst()
        } else if let colon = text.firstIndex(of: ":") {
            host = text[..<colon]
            port = text[text.index(after: colon)...]
            guard let port, !port.contains(":") else { throw invalid("an IPv6 address must be in brackets: [::1]:6379") }
        }
        let name = try decode(host, "host")
        guard !name.isEmpty else { throw invalid("it has no host") }
        guard let port, !port.isEmpty else { return ServerAddress(host: name, port: standard) }
        guard port.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = Int(port), (1...65535).contains(number) else {
            // The message does not quote the port: in redis://:secret/… it is part of a password.
            throw invalid("the port is not a number from 1 to 65535")
        }
        return ServerAddress(host: name, port: number)
    }

    private static func database(_ text: Substring) throws(RedisError) -> Int {
        guard !text.isEmpty, text.utf8.count <= 9, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = Int(text) else {
            throw invalid("the database is not a number of at most 9 digits")
        }
        return number
    }

    /// Decodes percent-encoding (RFC 3986, section 2.1).
    /// - Parameter part: the name of the part, for the error message.
    private static func decode(_ text: Substring, _ part: String) throws(RedisError) -> String {
        guard text.utf8.contains(UInt8(ascii: "%")) else { return String(text) }
        var bytes: [UInt8] = []
        var iterator = text.utf8.makeIterator()
        while let byte = iterator.next() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = iterator.next().flatMap(nibble), let low = iterator.next().flatMap(nibble) else {
                throw invalid("a '%' in the \(part) is not followed by two hexadecimal digits (a '%' itself is %25)")
            }
            bytes.append(high << 4 | low)
        }
        guard let decoded = String(validating: bytes, as: UTF8.self), !decoded.utf8.contains(0) else {
            throw invalid("the percent-encoded \(part) is not UTF-8 text")
        }
        return decoded
    }

    /// The value of a hexadecimal digit; nil for another byte.
    private static func nibble(_ digit: UInt8) -> UInt8? {
        switch digit {
        case 0x30...0x39: digit - 0x30
        case 0x41...0x46: digit - 0x37
        case 0x61...0x66: digit - 0x57
        default: nil
        }
    }
}

extension RedisURL: CustomReflectable {
    /// Hides the password from `dump` and test failures, which print mirrors.
    package var customMirror: Mirror { Mirror(self, children: ["url": description]) }
}
