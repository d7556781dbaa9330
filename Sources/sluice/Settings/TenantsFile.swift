import JobQueue
import Support
import Worker
import Yams

/// The parser of `SLUICE_TENANTS_FILE`, which is YAML or JSON (a subset of YAML): a list `tenants`, whose entry `default` is for all tenants
/// without one. Every fault names its line. Unknown fields are faults.
struct TenantsFile {
    /// Bytes.
    static let maximumSize = 4 << 20
    static let maximumTenants = 20_000
    private static let fields = [
        "name", "weight", "concurrency", "requests_per_minute", "tokens_per_minute", "daily_tokens", "webhook_url", "webhook_secret",
    ]

    private(set) var tenants: [String: TenantLimits] = [:]
    /// The receivers of webhooks, by tenant.
    private(set) var webhooks: [String: WebhookSettings.Target] = [:]
    private(set) var faults: [SettingFault] = []
    private let path: String

    /// Reads and parses a file. An unreadable file becomes a fault.
    init(path: String) {
        self.path = path
        do { parse(String(decoding: try FileContents.read(path, limit: Self.maximumSize), as: UTF8.self)) } catch {
            fault(0, "cannot be read: \(error)", "name a readable file")
        }
    }

    /// - Parameter path: used in faults.
    init(parsing text: String, path: String) {
        self.path = path
        parse(text)
    }

    private mutating func fault(_ line: Int, _ problem: String, _ remedy: String) {
        faults.append(SettingFault(name: nil, origin: .file(path, line: line), problem: problem, remedy: remedy))
    }

    private mutating func parse(_ text: String) {
        let root: Node?
        do { root = try Yams.compose(yaml: text) } catch {
            return fault(0, "it is neither YAML nor JSON", "write a list \"tenants\"")
        }
        guard let root, case .mapping(let mapping) = root, let node = root["tenants"], case .sequence(let list) = node else {
            return fault(0, "there is no list \"tenants\" in it", "write \"tenants:\" and a list under it")
        }
        for (key, _) in mapping where key.string != "tenants" {
            fault(key.mark?.line ?? 0, "unknown field \"\(Self.shown(key))\"", "the file contains one list, \"tenants\"")
        }
        guard list.count <= Self.maximumTenants else {
            return fault(node.mark?.line ?? 0, "there are \(list.count) tenants", "list at most \(Self.maximumTenants)")
        }
        for entry in list { readTenant(entry) }
    }

    private mutating func readTenant(_ node: Node) {
        let line = node.mark?.line ?? 0
        guard case .mapping(let mapping) = node else {
            return fault(line, "a tenant is not a mapping of fields", "write at least name")
        }
        for (key, _) in mapping where !Self.fields.contains(key.string ?? "") {
            fault(key.mark?.line ?? line, "unknown field \"\(Self.shown(key))\"", "a tenant has " + Self.fields.joined(separator: ", "))
        }
        guard let name = node["name"]?.scalar?.string, !name.isEmpty, name.utf8.count <= 256,
            !name.unicodeScalars.contains(where: { $0.value < 0x20 })
        else { return fault(line, "the tenant has no usable name", "give it a name of 1 to 256 bytes") }
        guard tenants[name] == nil else { return fault(line, "there are two entries for \(name.cut(toBytes: 60))", "keep one of them") }
        var limits = TenantLimits()
        if let text = node["weight"]?.scalar?.string {
            if let weight = Double(text), (0.001...1_000).contains(weight) {
                limits.weight = weight
            } else {
                fault(line, "\(name.cut(toBytes: 60)): weight is not a number from 0.001 to 1000", "write a number, 1 for an equal share")
            }
        }
        limits.concurrency = count("concurrency", in: node, of: name)
        limits.requestsPerMinute = count("requests_per_minute", in: node, of: name)
        limits.tokensPerMinute = count("tokens_per_minute", in: node, of: name)
        limits.dailyTokens = count("daily_tokens", in: node, of: name)
        tenants[name] = limits
        readWebhook(node, of: name, line)
    }

    private mutating func readWebhook(_ node: Node, of name: String, _ line: Int) {
        let secret = node["webhook_secret"]?.scalar?.string ?? ""
        guard let url = node["webhook_url"]?.scalar?.string else {
            if !secret.isEmpty {
                fault(line, "\(name.cut(toBytes: 60)): webhook_secret without webhook_url", "give the tenant a webhook_url, too")
            }
            return
        }
        guard url.hasPrefix("https://") || url.hasPrefix("http://"), url.utf8.allSatisfy({ (0x21..<0x7F).contains($0) }) else {
            return fault(line, "\(name.cut(toBytes: 60)): webhook_url is not a URL", "write a URL such as https://host/path")
        }
        guard WebhookSettings.Target.isUsable(secret: secret) else {
            return fault(
                line, "\(name.cut(toBytes: 60)): no base64 follows whsec_ in its webhook_secret",
                "write whsec_ and base64, or a text that begins differently")
        }
        webhooks[name] = WebhookSettings.Target(url: url, secret: secret)
    }

    /// A whole number from 1 to 1,000,000,000,000; nil when the field is missing or null.
    private mutating func count(_ field: String, in node: Node, of name: String) -> Int? {
        guard let value = node[field] else { return nil }
        if let text = value.scalar?.string {
            if ["", "~", "null"].contains(text) { return nil }
            if let number = Int(text), (1...1_000_000_000_000).contains(number) { return number }
        }
        fault(
            value.mark?.line ?? 0, "\(name.cut(toBytes: 60)): \(field) is not a whole number from 1",
            "write a whole number from 1 or omit the field")
        return nil
    }

    /// A key for a fault.
    private static func shown(_ node: Node) -> String { String((node.scalar?.string ?? "?").cut(toBytes: 60)) }
}

extension SettingsReader {
    /// The tenants of `SLUICE_TENANTS_FILE`; empty when it is not set.
    mutating func tenants() -> [String: TenantLimits] {
        guard let path = text("SLUICE_TENANTS_FILE") else { return [:] }
        let file = TenantsFile(path: path)
        add(file.faults)
        return file.tenants
    }
}
