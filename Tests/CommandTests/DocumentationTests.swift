import ArgumentParser
import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

@testable import sluice

/// The DocC catalogs and the README mention only existing names, and all names are documented.
@Suite("Documentation", .serialized, .cpuBound)
struct DocumentationTests {
    private static let root = Repository.root
    private static let modules = ["Contract", "Gateway", "JobQueue", "Worker", "sluice"]
    /// Names with the prefix of a setting that only tests read.
    private static let testVariables: Set<String> = [
        "SLUICE_BIN", "SLUICE_CHAOS_SECONDS", "SLUICE_CHAOS_TOPOLOGY_SECONDS", "SLUICE_TEST_REDIS_SERVER",
        "SLUICE_CHAOS_STREAMS", "SLUICE_CHAOS_SEED", "SLUICE_FUZZ_INPUTS", "SLUICE_FUZZ_SEED",
    ]
    /// Third-party types that articles mention.
    private static let foreignTypes: Set<String> = ["SerialExecutor", "JSONDecoder", "EventSource", "NIOLoopBound", "RedisClient"]

    // MARK: The articles

    struct Article: CustomTestStringConvertible, Sendable {
        let url: URL
        let text: String

        init(_ url: URL) throws {
            self.url = url
            text = try String(contentsOf: url, encoding: .utf8)
        }

        /// The path relative to the repository's root.
        var path: String { String(url.path.dropFirst(root.path.count + 1)) }
        var name: String { url.deletingPathExtension().lastPathComponent }
        var testDescription: String { path }
        /// Whether the article describes planned features.
        var isPlanned: Bool { name == "Planned" }

        /// Fenced blocks with their language.
        var blocks: [(language: String, text: String)] {
            text.matches(of: /(?ms)^```([a-z]*)\n(.*?)^```$/).map { (String($0.output.1), String($0.output.2)) }
        }

        /// The text without fenced blocks.
        var prose: String { text.replacing(/(?ms)^```[a-z]*\n.*?^```$/, with: "") }

        /// The text of each code span in the prose.
        var spans: [String] { prose.matches(of: /`([^`\n]+)`/).map { String($0.output.1) } }

        /// Headings below the title, as anchors.
        var anchors: Set<String> { Set(prose.matches(of: /(?m)^#{2,} (.+)$/).map { DocumentationTests.anchor($0.output.1) }) }
    }

    private static func anchor(_ heading: some StringProtocol) -> String {
        heading.lowercased().filter { $0.isLetter || $0.isNumber }
    }

    private static func catalog(_ module: String) -> URL { root.appending(path: "Sources/\(module)/\(module).docc") }

    private static func files(below folder: URL, named suffix: String) throws -> [URL] {
        let names = try #require(FileManager.default.enumerator(atPath: folder.path)).compactMap { $0 as? String }
        return names.filter { $0.hasSuffix(suffix) }.sorted().map { folder.appending(path: $0) }
    }

    private static func articles(of module: String) throws -> [Article] {
        try files(below: catalog(module), named: ".md").map { try Article($0) }
    }

    /// All articles and the README.
    private static func all() throws -> [Article] {
        try modules.flatMap { try articles(of: $0) } + [Article(root.appending(path: "README.md"))]
    }

    private static func article(_ module: String, _ name: String) throws -> Article {
        try Article(catalog(module).appending(path: "\(name).md"))
    }

    private static func names(_ text: String, _ pattern: Regex<Substring>) -> Set<String> {
        Set(text.matches(of: pattern).map { String($0.output) })
    }

    /// The first group of each match. Uses NSRegularExpression, since Swift's Regex takes seconds for all sources in a debug build.
    private static func captures(_ pattern: String, in text: String) throws -> [String] {
        let expression = try NSRegularExpression(pattern: pattern)
        let whole = NSRange(text.startIndex..., in: text)
        return expression.matches(in: text, range: whole).compactMap { Range($0.range(at: 1), in: text).map { String(text[$0]) } }
    }

    // MARK: Links

    @Test func `every link resolves`() throws {
        for article in try Self.all() {
            for match in article.prose.matches(of: /(?:\]\(([^)\s]+)\)|<(doc:[^>\s]+)>)/) {
                let target = String(match.output.1 ?? match.output.2 ?? "")
                if target.hasPrefix("http://") || target.hasPrefix("https://") { continue }
                let parts = target.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
                let isArticle = parts[0].hasPrefix("doc:")
                let path = isArticle ? parts[0].dropFirst(4) + ".md" : parts[0]
                let file = path.isEmpty ? article.url : article.url.deletingLastPathComponent().appending(path: path).standardizedFileURL
                guard FileManager.default.fileExists(atPath: file.path) else {
                    Issue.record("\(article.path): \(target) leads nowhere")
                    continue
                }
                if parts.count == 2 {
                    #expect(try Article(file).anchors.contains(Self.anchor(parts[1])), "\(article.path): no such section: \(target)")
                }
            }
        }
    }

    @Test(arguments: modules) func `the landing page lists every article`(module: String) throws {
        let landing = try Self.article(module, module)
        #expect(landing.text.hasPrefix("# ``\(module)``\n"))
        for article in try Self.articles(of: module) where article.name != module {
            #expect(landing.text.contains("- <doc:\(article.name)>\n"), "\(article.name) is not among the topics of \(module)")
        }
    }

    @Test func `the README links to every catalog`() throws {
        let readme = try Article(Self.root.appending(path: "README.md"))
        for module in Self.modules { #expect(readme.text.contains("(Sources/\(module)/\(module).docc/\(module).md)"), "\(module)") }
    }

    // MARK: Names

    @Test func `every mentioned setting exists`() throws {
        for article in try Self.all() {
            for name in Self.names(article.text, /SLUICE_[A-Z0-9_]*[A-Z0-9]/) where SettingTable.named(name) == nil {
                if Self.testVariables.contains(name) || article.isPlanned { continue }
                // "SLUICE_UPSTREAM_…" refers to several settings.
                if article.text.contains("\(name)_"), SettingTable.all.contains(where: { $0.name.hasPrefix("\(name)_") }) { continue }
                Issue.record("\(article.path): there is no setting \(name)")
            }
        }
    }

    @Test func `no planned feature exists already`() throws {
        let planned = try Self.article("Contract", "Planned")
        for name in Self.names(planned.text, /SLUICE_[A-Z0-9_]+/) {
            #expect(SettingTable.named(name) == nil, "\(name) exists: describe it, and take it out of Planned.md")
        }
    }

    @Test func `every setting is documented with its default`() throws {
        let settings = try Self.article("Contract", "Settings")
        for setting in SettingTable.all {
            let standard = setting.defaultText.map { "`\($0)`" } ?? "–"
            #expect(
                settings.text.contains("\n| `\(setting.name)` | \(standard) | "),
                "Settings.md has no row that begins with | `\(setting.name)` | \(standard) |")
        }
    }

    /// Paths of commands, such as `["job", "list"]`, and whether they have subcommands.
    private static func commands(_ type: any ParsableCommand.Type, _ path: [String] = []) -> [[String]: Bool] {
        let subcommands = type.configuration.subcommands
        var found = [path: !subcommands.isEmpty]
        for subcommand in subcommands {
            guard let name = subcommand.configuration.commandName else { continue }
            found.merge(commands(subcommand, path + [name])) { first, _ in first }
        }
        return found
    }

    @Test func `every mentioned command exists`() throws {
        let commands = Self.commands(Sluice.self)
        for article in try Self.all() {
            let code = article.spans + article.blocks.filter { $0.language == "sh" }.map(\.text)
            for text in code {
                for match in text.matches(of: /\bsluice ([a-z][a-z-]*)(?: ([a-z][a-z|-]*))?/) {
                    let (first, second) = (String(match.output.1), match.output.2.map(String.init))
                    guard let isGroup = commands[[first]] else {
                        Issue.record("\(article.path): there is no command sluice \(first)")
                        continue
                    }
                    guard isGroup, let second else { continue }
                    for word in second.split(separator: "|") {
                        #expect(commands[[first, String(word)]] != nil, "\(article.path): there is no command sluice \(first) \(word)")
                    }
                }
            }
        }
    }

    @Test func `every command is documented`() throws {
        let article = try Self.article("Contract", "CommandLine")
        for (path, isGroup) in Self.commands(Sluice.self) where !isGroup {
            #expect(article.text.contains("`sluice \(path.joined(separator: " "))"), "\(path)")
        }
    }

    /// Names of metrics in the sources. A composed name is `sluice_queue_` and an argument of `gauge` in the same file.
    private static func metrics() throws -> Set<String> {
        var names: Set<String> = []
        for file in try files(below: root.appending(path: "Sources"), named: ".swift") {
            let text = try String(contentsOf: file, encoding: .utf8)
            names.formUnion(try captures(#""(sluice_[a-z0-9_]+)""#, in: text))
            for prefix in try captures(#""(sluice_[a-z_]+_)\\\(name\)""#, in: text) {
                names.formUnion(try captures(#"= gauge\("([a-z_]+)"\)"#, in: text).map { prefix + $0 })
            }
        }
        return names
    }

    @Test func `every mentioned metric exists and every metric is documented`() throws {
        let metrics = try Self.metrics()
        #expect(metrics.contains("sluice_queue_depth") && metrics.count > 40)
        for article in try Self.all() {
            for name in Self.names(article.text, /\bsluice_[a-z0-9_]*[a-z0-9]/) {
                let family = name.replacing(/_(?:bucket|sum|count)$/, with: "")
                #expect(metrics.contains(family), "\(article.path): there is no metric \(name)")
            }
        }
        let documented = Self.names(try Self.article("sluice", "Metrics").text, /sluice_[a-z0-9_]+/)
        for name in metrics.subtracting(documented) { Issue.record("Metrics.md does not describe \(name)") }
    }

    @Test func `every alert is documented`() throws {
        let rules = try String(contentsOf: Self.root.appending(path: "docker/alerts.yaml"), encoding: .utf8)
        let alerts = Set(rules.matches(of: /alert: (\w+)/).map { String($0.output.1) })
        let documented = Set(try Self.article("sluice", "Alerts").text.matches(of: /(?m)^### (Sluice\w+)$/).map { String($0.output.1) })
        #expect(alerts == documented)
    }

    @Test func `every failure code, phase and class is documented`() throws {
        let events = try Self.article("Contract", "Events")
        for word in FailureCode.allCases.map(\.rawValue) + Phase.allCases.map(\.rawValue) {
            #expect(events.text.contains("\n| `\(word)` |"), "\(word)")
        }
        let keys = try Self.article("Contract", "RedisKeysAndChannels")
        for word in JobClass.allCases.map(\.rawValue) + JobState.allCases.map(\.rawValue) {
            #expect(keys.text.contains("`\(word)`"), "\(word)")
        }
    }

    @Test func `every script is documented`() throws {
        let article = try Self.article("JobQueue", "Scripts")
        let scripts = try Self.files(below: Self.root.appending(path: "Sources"), named: ".lua")
        #expect(scripts.count > 10)
        for script in scripts { #expect(article.text.contains("`\(script.lastPathComponent)`"), "\(script.lastPathComponent)") }
    }

    @Test func `every threat has an existing test or a reason why it is accepted`() throws {
        var suites: Set<String> = []
        for file in try Self.files(below: Self.root.appending(path: "Tests"), named: ".swift") {
            suites.formUnion(try Self.captures(#"\b(?:struct|enum|class) (\w+Tests)\b"#, in: String(contentsOf: file, encoding: .utf8)))
        }
        let article = try Self.article("sluice", "Threats")
        var rows = 0
        for line in article.text.split(separator: "\n") where line.hasPrefix("| ") && !line.hasPrefix("| Threat |") {
            let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
            rows += 1
            // The table of accepted risks has two columns: the threat and the reason.
            guard cells.count == 3 else {
                #expect(cells.count == 2 && !cells[1].isEmpty, "\(line)")
                continue
            }
            let named = cells[2].matches(of: /`(\w+)`/).map { String($0.output.1) }
            #expect(!named.isEmpty && suites.isSuperset(of: named), "\(line)")
        }
        #expect(rows >= 52, "\(rows) rows")
    }

    @Test func `every mentioned type exists`() throws {
        var types = Self.foreignTypes
        for file in try Self.files(below: Self.root.appending(path: "Sources"), named: ".swift") {
            let text = try String(contentsOf: file, encoding: .utf8)
            types.formUnion(try Self.captures(#"\b(?:class|struct|actor|enum|protocol|typealias) ([A-Z]\w+)"#, in: text))
        }
        for module in ["JobQueue", "Worker", "Gateway", "sluice"] {
            for article in try Self.articles(of: module) where article.name != "Threats" {
                for span in article.spans where span.wholeMatch(of: /[A-Z][A-Za-z]*[a-z][A-Za-z]*/) != nil {
                    // Headers and other capitalized words that are not types.
                    if span == "Procfile" { continue }
                    #expect(types.contains(span) || Self.modules.contains(span), "\(article.path): there is no type \(span)")
                }
            }
        }
    }

    // MARK: Form

    @Test func `JSON in the articles parses`() throws {
        for article in try Self.all() {
            for block in article.blocks where block.language == "json" {
                #expect(throws: Never.self, "\(article.path): \(block.text)") { try JSON(parsing: block.text) }
            }
        }
    }

    private static let docc = Program.find("docc") ?? (FileManager.default.isExecutableFile(atPath: fallback) ? fallback : nil)
    private static let fallback = "/opt/swift/usr/bin/docc"

    /// Checks links with an empty symbol graph, since extracting the module's symbols requires a separate build.
    @Test(.enabled("needs docc of the Swift toolchain") { docc != nil }, arguments: modules)
    func `docc builds the catalog without warnings`(module: String) async throws {
        let docc = try #require(Self.docc)
        let folder = try TemporaryFolder("docc")
        defer { folder.remove() }
        let graph: JSON = [
            "metadata": ["formatVersion": ["major": 0, "minor": 6, "patch": 0], "generator": "tests"],
            "module": ["name": .string(module), "platform": [:]], "symbols": [], "relationships": [],
        ]
        try FileManager.default.createDirectory(atPath: folder.file("graphs"), withIntermediateDirectories: true)
        try Data(graph.text.utf8).write(to: URL(filePath: folder.file("graphs/\(module).symbols.json")))
        let outcome = try await Program.run(
            docc,
            [
                "convert", Self.catalog(module).path, "--additional-symbol-graph-dir", folder.file("graphs"), "--output-path",
                folder.file("out"), "--fallback-display-name", module, "--fallback-bundle-identifier", "sluice.\(module)",
                "--warnings-as-errors",
            ])
        #expect(outcome.succeeded, "\(outcome.output.suffix(4_000))")
        #expect(FileManager.default.fileExists(atPath: folder.file("out/data/documentation/\(module.lowercased()).json")))
    }
}
