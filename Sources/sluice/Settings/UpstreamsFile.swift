import Contract
import JSONCodec
import Observability
import Support
import Upstream
import Yams

/// The parser of `SLUICE_UPSTREAMS_FILE`, which is YAML or JSON (a subset of YAML). Every fault names its line. Unknown fields are faults.
struct UpstreamsFile {
    /// Bytes.
    static let maximumSize = 1 << 20
    static let maximumUpstreams = 1_000
    private static let fields = [
        "name", "kind", "url", "key_file", "key_env", "models", "aliases", "prefix", "requests_per_minute", "tokens_per_minute",
        "concurrency", "abort", "fallback",
    ]

    private(set) var upstreams: [UpstreamConfiguration] = []
    private(set) var faults: [SettingFault] = []
    private let path: String
    /// The environment that `key_env` refers to.
    private let environment: [String: String]
    /// The line of each upstream, for faults that are found after all upstreams are read.
    private var lines: [Int] = []

    /// Reads and parses a file. An unreadable file becomes a fault.
    init(path: String, environment: [String: String]) {
        self.path = path
        self.environment = environment
        do { parse(String(decoding: try FileContents.read(path, limit: Self.maximumSize), as: UTF8.self)) } catch {
            fault(0, "cannot be read: \(error)", "name a readable file")
        }
    }

    /// - Parameter path: used in faults, and to resolve a relative `key_file`.
    init(parsing text: String, path: String, environment: [String: String]) {
        self.path = path
        self.environment = environment
        parse(text)
    }

    private mutating func fault(_ line: Int, _ problem: String, _ remedy: String) {
        faults.append(SettingFault(name: nil, origin: .file(path, line: line), problem: problem, remedy: remedy))
    }

    private mutating func parse(_ text: String) {
        let root: Node?
        do {
            root = try Yams.compose(yaml: text)
        } catch let error as YamlError {
            return fault(Self.line(of: error), "it is neither YAML nor JSON: \(Self.reason(of: error))", "fix the syntax in this line")
        } catch {
            return fault(0, "it is neither YAML nor JSON", "write a list \"upstreams\"")
        }
        guard let root, case .mapping(let mapping) = root else {
            return fault(0, "there is no list \"upstreams\" in it", "write \"upstreams:\" and a list under it")
        }
        for (key, _) in mapping where key.string != "upstreams" {
            fault(key.line, "unknown field \"\(key.shown)\"", "the file contains one list, \"upstreams\"")
        }
        guard let node = root["upstreams"], case .sequence(let list) = node, !list.isEmpty else {
            return fault(root["upstreams"]?.line ?? 0, "\"upstreams\" is not a list of at least one upstream", "list at least one upstream")
        }
        guard list.count <= Self.maximumUpstreams else {
            return fault(node.line, "there are \(list.count) upstreams", "list at most \(Self.maximumUpstreams)")
        }
        for entry in list { readUpstream(entry) }
        checkNames()
    }

    /// Reads one entry of the list. A faulty entry is added too, so that later checks can report further faults.
    private mutating func readUpstream(_ node: Node) {
        guard case .mapping(let mapping) = node else {
            return fault(node.line, "an upstream is not a mapping of fields", "write at least name and url")
        }
        for (key, _) in mapping where !Self.fields.contains(key.string ?? "") {
            fault(key.line, "unknown field \"\(key.shown)\"", "an upstream has " + Self.fields.joined(separator: ", "))
        }
        let name = string("name", in: node) ?? ""
        if name.isEmpty || name.utf8.count > 100 || name.contains(where: \.isWhitespace)
            || name.unicodeScalars.contains(where: \.steersTerminal)
        {
            fault(node["name"]?.line ?? node.line, "the upstream has no usable name", "give it a name of 1 to 100 bytes without spaces")
        }
        let url = string("url", in: node) ?? ""
        if let problem = Self.problem(ofURL: url) {
            fault(node["url"]?.line ?? node.line, "\(name): \(problem.problem)", problem.remedy)
        }
        var upstream = UpstreamConfiguration(
            name: name, kind: word("kind", in: node, of: name) ?? .openai, url: url, key: key(in: node, of: name))
        if let prefix: UpstreamConfiguration.Prefix = word("prefix", in: node, of: name) { upstream.prefix = prefix }
        upstream.models = strings("models", in: node, of: name)
        upstream.aliases = aliases(in: node, of: name)
        upstream.fallback = strings("fallback", in: node, of: name)
        upstream.requestsPerMinute = count("requests_per_minute", in: node, of: name)
        upstream.tokensPerMinute = count("tokens_per_minute", in: node, of: name)
        upstream.concurrency = count("concurrency", in: node, of: name)
        if let abort: UpstreamConfiguration.Abort = word("abort", in: node, of: name) { upstream.abort = abort }
        let longest = (upstream.models + upstream.aliases.flatMap { [$0.key, $0.value] }).max { $0.utf8.count < $1.utf8.count } ?? ""
        if longest.utf8.count > NameLimit.model {
            fault(
                node.line, "\(name): the model \"\(longest.cut(toBytes: 60))…\" has more than \(NameLimit.model) bytes",
                "give models shorter names")
        }
        if upstream.models.isEmpty {
            // For the router an upstream without models serves every model. In a file, models must be listed.
            upstream.models = upstream.aliases.keys.sorted()
            if upstream.models.isEmpty { fault(node.line, "\(name): no models are listed", "list the models that it serves in \"models\"") }
        }
        upstreams.append(upstream)
        lines.append(node.line)
    }

    /// Why a URL cannot be used, and how to fix it; nil for a usable URL.
    private static func problem(ofURL url: String) -> (problem: String, remedy: String)? {
        let unusable = (problem: "the upstream has no usable url", remedy: "write a URL that begins with http:// or https://")
        guard let scheme = ["http://", "https://"].first(where: { url.hasPrefix($0) }), !url.contains(where: \.isWhitespace) else {
            return unusable
        }
        let authority = url.dropFirst(scheme.count).prefix { $0 != "/" && $0 != "?" && $0 != "#" }
        guard !authority.contains("@") else {
            return ("its url contains a user name or a password", "keep secrets out of this file: use key_file or key_env")
        }
        // An IPv6 address is in brackets and contains colons.
        let host = authority.hasPrefix("[") ? authority.prefix { $0 != "]" } + "]" : authority.prefix { $0 != ":" }
        let port = authority.dropFirst(host.count)
        guard host.count > (host.hasPrefix("[") ? 2 : 0) else { return ("its url has no host", unusable.remedy) }
        guard port.isEmpty || port.first == ":" && Int(port.dropFirst()).map({ (1...65_535).contains($0) }) == true else {
            return ("the port in its url is invalid", "write a port from 1 to 65535")
        }
        return nil
    }

    /// Checks that names are unique and fallbacks refer to other upstreams of the file.
    private mutating func checkNames() {
        var seen: Set<String> = []
        let names = Set(upstreams.map(\.name))
        for (upstream, line) in zip(upstreams, lines) where !upstream.name.isEmpty {
            if !seen.insert(upstream.name).inserted {
                fault(line, "there are two upstreams named \(upstream.name)", "give each its own name")
            }
            for other in upstream.fallback where !names.contains(other) || other == upstream.name {
                fault(
                    line,
                    "\(upstream.name): fallback \"\(other)\" is \(other == upstream.name ? "the upstream itself" : "not in the file")",
                    "name another upstream of this file")
            }
            if Set(upstream.fallback).count < upstream.fallback.count {
                fault(line, "\(upstream.name): a fallback is listed twice", "list each fallback once, in the order in which they are tried")
            }
        }
    }

    // MARK: Fields

    /// A scalar field as trimmed text; nil when it is missing or null.
    private mutating func string(_ field: String, in node: Node) -> String? {
        guard let value = node[field], !value.isNull else { return nil }
        guard let scalar = value.scalar else {
            fault(value.line, "\"\(field)\" is not a string", "write one value")
            return nil
        }
        return SettingValue.trimmed(scalar.string)
    }

    /// A field whose value is one of a fixed set of words.
    private mutating func word<Word: RawRepresentable & CaseIterable>(_ field: String, in node: Node, of name: String) -> Word?
    where Word.RawValue == String {
        guard let text = string(field, in: node) else { return nil }
        if let word = Word(rawValue: text) { return word }
        fault(
            node[field]?.line ?? 0, "\(name): \(field) \"\(text.cut(toBytes: 40))\" is not known",
            "write one of " + Word.allCases.map(\.rawValue).joined(separator: ", "))
        return nil
    }

    /// A field whose value is a list of scalars; empty when it is missing or null.
    private mutating func strings(_ field: String, in node: Node, of name: String) -> [String] {
        guard let value = node[field], !value.isNull else { return [] }
        guard case .sequence(let sequence) = value, sequence.allSatisfy({ $0.scalar != nil && !$0.isNull }) else {
            fault(value.line, "\(name): \(field) is not a list of strings", "write [a, b]")
            return []
        }
        return sequence.compactMap { $0.scalar?.string }.filter { !$0.isEmpty }
    }

    /// The models by alias.
    private mutating func aliases(in node: Node, of name: String) -> [String: String] {
        guard let value = node["aliases"], !value.isNull else { return [:] }
        guard case .mapping(let mapping) = value else {
            fault(value.line, "\(name): aliases is not a mapping of names to models", "write {name: model}")
            return [:]
        }
        var result: [String: String] = [:]
        for (key, model) in mapping {
            if let alias = key.scalar?.string, let model = model.scalar?.string, !alias.isEmpty, !model.isEmpty {
                result[alias] = model
            } else {
                fault(key.line, "\(name): the alias \"\(key.shown)\" has no model", "write name: model")
            }
        }
        return result
    }

    /// A whole number from 1 to 1,000,000,000.
    private mutating func count(_ field: String, in node: Node, of name: String) -> Int? {
        guard let text = string(field, in: node) else { return nil }
        if let number = Int(text), (1...1_000_000_000).contains(number) { return number }
        fault(node[field]?.line ?? 0, "\(name): \(field) is not a whole number from 1", "write a whole number from 1 or omit the field")
        return nil
    }

    /// The API key that `key_file` or `key_env` refers to. The file cannot contain the key itself, because such files are shared and
    /// committed.
    private mutating func key(in node: Node, of name: String) -> String? {
        guard let key = readKey(in: node, of: name) else { return nil }
        if !UpstreamConfiguration.isSendable(key: key) {
            fault(
                (node["key_file"] ?? node["key_env"])?.line ?? 0, "\(name): its key contains characters that HTTP headers do not allow",
                "write one key, without spaces and line breaks")
        }
        return key
    }

    private mutating func readKey(in node: Node, of name: String) -> String? {
        let file = string("key_file", in: node)
        let variable = string("key_env", in: node)
        if file != nil, variable != nil {
            fault(node["key_env"]?.line ?? node.line, "\(name): key_file and key_env are both given", "keep one of them")
        }
        if let file {
            // A relative path is relative to the folder of the upstreams file.
            let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
            do { return try FileContents.readKey(file.hasPrefix("/") ? file : folder + file) } catch {
                fault(
                    node["key_file"]?.line ?? 0, "\(name): key_file \(file) cannot be used: \(error)", "name a file that contains the key")
            }
        } else if let variable {
            if let key = environment[variable].map({ SettingValue.trimmed($0) }), !key.isEmpty { return key }
            fault(
                node["key_env"]?.line ?? 0, "\(name): the environment has no \(variable)",
                "set it, or leave key_env out if no key is needed")
        }
        return nil
    }

    // MARK: Errors of the YAML library

    /// The line of a YAML error; 0: unknown.
    private static func line(of error: YamlError) -> Int {
        switch error {
        case .scanner(_, _, let mark, _), .parser(_, _, let mark, _), .composer(_, _, let mark, _): mark.line
        default: 0
        }
    }

    /// The reason without the excerpt of the file that the library adds, since it may contain secrets.
    private static func reason(of error: YamlError) -> String {
        switch error {
        case .scanner(_, let problem, _, _), .parser(_, let problem, _, _), .composer(_, let problem, _, _): problem
        case .duplicatedKeysInMapping: "a field occurs twice"
        default: "it cannot be read"
        }
    }
}

extension Node {
    /// 0: unknown.
    fileprivate var line: Int { mark?.line ?? 0 }
    /// The scalar's text for a fault, cut to 60 bytes.
    fileprivate var shown: String { String((scalar?.string ?? "?").cut(toBytes: 60)) }
    fileprivate var isNull: Bool { scalar.map { $0.style == .plain && ["", "~", "null", "Null", "NULL"].contains($0.string) } ?? false }
}
