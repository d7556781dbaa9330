import Contract
import JSONCodec
import Testing
import Upstream

@testable import sluice

@Suite("Upstreams file")
struct UpstreamsFileTests {
    @Test func `YAML is parsed`() throws {
        try withFile("  the-key \n") { key in
            let file = UpstreamsFile(
                parsing: """
                    upstreams:
                      - name: main
                        kind: dashscope
                        url: https://h/api/v1
                        key_file: \(key)
                        models: [qwen-plus, qwen-max]
                        aliases: {fast: qwen-turbo}
                        requests_per_minute: 600
                        concurrency: 32
                        fallback: [spare]
                      - name: spare
                        url: http://127.0.0.1:8000/v1
                        key_env: SPARE_KEY
                        aliases: {qwen-plus: llama}
                        prefix: continue
                    """, path: "f", environment: ["SPARE_KEY": "other"])
            #expect(file.faults == [])
            try #require(file.upstreams.count == 2)
            let main = file.upstreams[0], spare = file.upstreams[1]
            #expect(main.name == "main" && main.kind == .dashscope && main.url == "https://h/api/v1" && main.key == "the-key")
            #expect(main.models == ["qwen-plus", "qwen-max"] && main.aliases == ["fast": "qwen-turbo"] && main.prefix == .partial)
            #expect(main.requestsPerMinute == 600 && main.concurrency == 32 && main.fallback == ["spare"])
            #expect(spare.kind == .openai && spare.key == "other" && spare.prefix == .continue && spare.models == ["qwen-plus"])
        }
    }

    @Test func `names are limited in bytes`() {
        func faults(name: String = "a", model: String = "m", alias: String = "f") -> [String] {
            let json: JSON = [
                "upstreams": [
                    [
                        "name": .string(name), "url": "http://h/v1", "models": [.string(model)],
                        "aliases": .object(JSONObject([.init(name: alias, value: "m")])),
                    ]
                ]
            ]
            return UpstreamsFile(parsing: json.text, path: "f", environment: [:]).faults.map(\.description)
        }
        let longest = String(repeating: "m", count: 256)
        #expect(faults(model: longest, alias: longest) == [])
        #expect(faults(model: longest + "m").count == 1 && faults(alias: longest + "m").count == 1)
        #expect(faults(model: longest + "m").allSatisfy { $0.utf8.count < 300 })
        #expect(faults(name: "a\u{202E}b").count == 1)
    }

    @Test func `JSON is parsed`() {
        let file = UpstreamsFile(
            parsing: #"{"upstreams": [{"name": "a", "kind": "openai", "url": "http://h/v1", "key_file": null, "models": ["m"]}]}"#,
            path: "f", environment: [:])
        #expect(file.faults == [])
        #expect(file.upstreams.map(\.name) == ["a"])
        #expect(file.upstreams.first?.key == nil)
    }

    @Test func `URLs of all forms are accepted`() {
        for url in ["http://h", "https://h.example:8443/v1", "http://[::1]:8000/v1", "http://[fd00::2]", "http://10.0.0.1:1/a?b=c@d"] {
            let text = "upstreams:\n- {name: a, url: '\(url)', models: [m]}"
            #expect(UpstreamsFile(parsing: text, path: "f", environment: [:]).faults == [], "\(url)")
        }
    }

    /// YAML aliases that expand ninefold with each line.
    @Test func `nested YAML aliases are cheap`() {
        var text = "a0: &x0 [m, m, m, m, m, m, m, m, m]\n"
        for depth in 1...12 {
            text += "a\(depth): &x\(depth) [" + Array(repeating: "*x\(depth - 1)", count: 9).joined(separator: ", ") + "]\n"
        }
        text += "upstreams:\n- {name: a, url: 'http://h', models: *x12}"
        #expect(!UpstreamsFile(parsing: text, path: "f", environment: [:]).faults.isEmpty)
    }

    @Test(arguments: [
        ("[]", "f: there is no list \"upstreams\" in it; write \"upstreams:\" and a list under it"),
        ("", "f: there is no list \"upstreams\" in it; write \"upstreams:\" and a list under it"),
        ("upstreams: []", "f:1: \"upstreams\" is not a list of at least one upstream; list at least one upstream"),
        (
            "upstreams:\n- {name: a, url: 'http://h', models: [m], key: secret}",
            "f:2: unknown field \"key\"; an upstream has name, kind, url, key_file,"
        ),
        (
            "more: 1\nupstreams:\n- {name: a, url: 'http://h', models: [m]}",
            "f:1: unknown field \"more\"; the file contains one list, \"upstreams\""
        ),
        ("upstreams:\n- {url: 'http://h', models: [m]}", "f:2: the upstream has no usable name;"),
        ("upstreams:\n- name: a\n  url: h\n  models: [m]", "f:3: a: the upstream has no usable url;"),
        ("upstreams:\n- {name: a, url: 'https://', models: [m]}", "f:2: a: its url has no host;"),
        ("upstreams:\n- {name: a, url: 'http://[]:80/v1', models: [m]}", "f:2: a: its url has no host;"),
        ("upstreams:\n- {name: a, url: 'http://h:99999/v1', models: [m]}", "f:2: a: the port in its url is invalid;"),
        ("upstreams:\n- {name: a, url: 'http://h:', models: [m]}", "f:2: a: the port in its url is invalid;"),
        (
            "upstreams:\n- {name: a, url: 'https://u:p@h/v1', models: [m]}",
            "f:2: a: its url contains a user name or a password; keep secrets"
        ),
        ("upstreams:\n- {name: \"a\\0b\", url: 'http://h', models: [m]}", "f:2: the upstream has no usable name;"),
        (
            "upstreams:\n- {name: a, url: 'http://h', models: [m], fallback: [b, b]}\n- {name: b, url: 'http://h', models: [m]}",
            "f:2: a: a fallback is listed twice;"
        ),
        ("upstreams:\n- {name: a, url: 'http://h'}", "f:2: a: no models are listed;"),
        ("upstreams:\n- {name: a, url: 'http://h', models: m}", "f:2: a: models is not a list of strings;"),
        (
            "upstreams:\n- {name: a, url: 'http://h', models: [m], kind: gpt}",
            "f:2: a: kind \"gpt\" is not known; write one of openai, dashscope,"
        ),
        ("upstreams:\n- {name: a, url: 'http://h', models: [m], concurrency: 0}", "f:2: a: concurrency is not a whole number from 1;"),
        ("upstreams:\n- {name: a, url: 'http://h', models: [m], key_env: NOT_THERE}", "f:2: a: the environment has no NOT_THERE;"),
        (
            "upstreams:\n- {name: a, url: 'http://h', models: [m], key_env: TWO_KEYS}",
            "f:2: a: its key contains characters that HTTP headers do not allow;"
        ),
        ("upstreams:\n- {name: a, url: 'http://h', models: [m], key_file: /nowhere/key}", "f:2: a: key_file /nowhere/key cannot be used:"),
        ("upstreams:\n- {name: a, url: 'http://h', models: [m], fallback: [b]}", "f:2: a: fallback \"b\" is not in the file;"),
        ("upstreams:\n- {name: a, url: 'http://h', models: [m], fallback: [a]}", "f:2: a: fallback \"a\" is the upstream itself;"),
        (
            "upstreams:\n- {name: a, url: 'http://h', models: [m]}\n- {name: a, url: 'http://h', models: [n]}",
            "f:3: there are two upstreams named a;"
        ),
        ("upstreams:\n- {name: a, name: b}", "f: it is neither YAML nor JSON: a field occurs twice;"),
        ("upstreams: [", "f:"),
    ])
    func `invalid files are faults`(text: String, beginning: String) {
        let file = UpstreamsFile(parsing: text, path: "f", environment: ["TWO_KEYS": "a\nb"])
        #expect(file.faults.contains { $0.description.hasPrefix(beginning) }, "\(file.faults)")
    }
}
