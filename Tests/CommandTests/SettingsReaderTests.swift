import Contract
import CurlTransport
import Gateway
import JobQueue
import Logging
import Testing
import Upstream
import Worker

@testable import sluice

@Suite("Settings")
struct SettingsReaderTests {
    private func faults(_ environment: [String: String], node: ConfigCheckCommand.Node? = nil) -> [String] {
        ConfigCheckCommand.faults(of: SettingsSource(environment: environment), node: node).map(\.description)
    }

    @Test func `definitions are unique and defaults are valid`() {
        #expect(Set(SettingTable.all.map(\.name)).count == SettingTable.all.count)
        for setting in SettingTable.all {
            #expect(setting.name.hasPrefix("SLUICE_"))
            #expect(!setting.readers.isEmpty)
            #expect(setting.meaning.hasSuffix(".") || setting.isSecret)
        }
        // Every default must be a valid value.
        #expect(faults([:]) == [])
    }

    @Test func `the environment overrides the file and the file overrides the default`() throws {
        try withFile("SLUICE_LEASE=20s\nSLUICE_RETENTION=1h\n") { path in
            let source = SettingsSource(environment: ["SLUICE_LEASE": "30s", "HOME": "/"], file: path)
            #expect(source.value("SLUICE_LEASE") == .init(text: "30s", origin: .environment))
            #expect(source.value("SLUICE_RETENTION") == .init(text: "1h", origin: .file(path, line: 2)))
            #expect(source.value("SLUICE_PARTITIONS") == .init(text: "1", origin: .default))
            #expect(source.value("SLUICE_WORKER_NAME") == nil)
            var reader = SettingsReader(source)
            #expect(reader.queue().lease == .seconds(30))
            #expect(reader.queue().retention == .seconds(3_600))
        }
    }

    @Test(arguments: ["SLUICE_WORKER_NAME", "SLUICE_GATEWAY_NAME"])
    func `node names are short and printable`(setting: String) {
        func faults(_ name: String) -> Int {
            var reader = SettingsReader(SettingsSource(environment: [setting: name]))
            _ = reader.nodeName(setting)
            return reader.faults.count
        }
        #expect(faults(String(repeating: "n", count: 128)) == 0 && faults("höst-1") == 0)
        for name in [String(repeating: "n", count: 129), String(repeating: "é", count: 65), "a b", "a\u{1B}[2J", "a\u{202E}b"] {
            #expect(faults(name) == 1, "\(name)")
        }
    }

    @Test func `an empty value counts as unset`() {
        #expect(SettingsSource(environment: ["SLUICE_LEASE": ""]).value("SLUICE_LEASE")?.origin == .default)
    }

    @Test func `all settings reach the modules`() {
        var reader = SettingsReader(
            SettingsSource(environment: [
                "SLUICE_NAMESPACE": "other", "SLUICE_PARTITIONS": "4", "SLUICE_LOG_MAX": "1MiB", "SLUICE_MAX_CRASHES": "5",
                "SLUICE_QUEUE_MAX": "7", "SLUICE_QUEUE_MAX_BYTES": "2MiB", "SLUICE_QUEUE_MAX_BYTES_PER_TENANT": "0",
                "SLUICE_DEAD_MAX_BYTES": "3MiB",
                "SLUICE_DEAD_MAX": "8", "SLUICE_WORKER_NAME": "w1", "SLUICE_CONCURRENCY": "9", "SLUICE_DRAIN_TIMEOUT": "1m",
                "SLUICE_RETRIES": "0",
                "SLUICE_CONNECT_TIMEOUT": "2", "SLUICE_FIRST_TOKEN_TIMEOUT": "3s", "SLUICE_IDLE_TIMEOUT": "4s",
                "SLUICE_TOTAL_TIMEOUT": "5s",
                "SLUICE_DEFAULT_MODEL": "m", "SLUICE_METRICS_LISTEN": "127.0.0.1:9", "SLUICE_UPSTREAM_KIND": "dashscope",
                "SLUICE_UPSTREAM_URL": "https://h/api/v1", "SLUICE_UPSTREAM_KEY": "k", "SLUICE_LISTEN": "[::1]:99",
                "SLUICE_API_KEYS": "t:0123456789abcdef", "SLUICE_JWT_REQUIRE_EXP": "off", "SLUICE_MAX_STREAMS_PER_TENANT": "6",
                "SLUICE_MAX_HTTP_REQUESTS_PER_TENANT": "11", "SLUICE_MAX_BODY_BYTES_PER_TENANT": "3MiB",
                "SLUICE_MAX_MESSAGE": "2MiB", "SLUICE_HISTORY_TURNS": "0", "SLUICE_ALLOWED_ORIGINS": "https://a, https://b",
                "SLUICE_GATEWAY_NAME": "g1", "SLUICE_BODY_TIMEOUT": "7s", "SLUICE_DRAIN_NOTICE": "8s",
            ]))
        let queue = reader.queue(), worker = reader.worker(), gateway = reader.gateway()
        #expect(reader.faults == [])
        #expect(queue.keys == Keys(namespace: "other", partitions: 4))
        #expect(queue.logMaximum == 1 << 20 && queue.maximumCrashes == 5 && queue.queueMaximum == 7 && queue.deadMaximum == 8)
        #expect(queue.queueMaximumBytes == 2 << 20 && queue.ownerQueueMaximumBytes == 0 && queue.deadMaximumBytes == 3 << 20)
        #expect(worker.name == "w1" && worker.concurrency == 9 && worker.drainTimeout == .seconds(60) && worker.retries == 0)
        #expect(worker.upstreamSettings.connectTimeout == .seconds(2) && worker.firstTokenTimeout == .seconds(3))
        #expect(worker.idleTimeout == .seconds(4) && worker.totalTimeout == .seconds(5) && worker.defaultModel == "m")
        #expect(worker.metricsListen?.host == "127.0.0.1" && worker.metricsListen?.port == 9)
        #expect(worker.upstreams.count == 1 && worker.upstreams[0].kind == .dashscope && worker.upstreams[0].key == "k")
        #expect(worker.upstreams[0].prefix == .partial && worker.upstreams[0].models.isEmpty)
        #expect(gateway.host == "::1" && gateway.port == 99 && gateway.name == "g1" && gateway.messageMaximum == 2 << 20)
        #expect(
            gateway.historyTurns == 0 && gateway.allowedOrigins == ["https://a", "https://b"]
                && gateway.authentication.apiKeys == "t:0123456789abcdef")
        #expect(!gateway.authentication.jwtRequiresExpiration && gateway.streamsPerTenant == 6)
        #expect(gateway.httpRequestsPerTenant == 11 && gateway.bodyBytesPerTenant == 3 << 20)
        #expect(gateway.drainTimeout == .seconds(60) && gateway.authentication.listensOnLoopback)
        #expect(gateway.bodyTimeout == .seconds(7) && gateway.drainNotice == .seconds(8))
    }

    @Test func `every fault is reported`() {
        let found = faults([
            "SLUICE_LEASE": "soon", "SLUICE_RETRIES": "-1", "SLUICE_LISTEN": "8080", "SLUICE_UPSTREAM_KIND": "gpt", "SLUICE_LES": "1s",
            "SLUICE_UPSTREAMS_FILE": "/nowhere/at/all", "SLUICE_MAX_MESSAGE": "1", "SLUICE_UPSTREAM_URL": "ftp://h", "SLUICE_AUTH": "maybe",
        ])
        for expected in [
            #"SLUICE_LES (environment): there is no such setting; did you mean SLUICE_LEASE?"#,
            #"SLUICE_LEASE (environment): "soon" cannot be used; write a duration such as 250ms, 10s, 5m, 1h or a number of seconds, from 300ms to 1h"#,
            #"SLUICE_RETRIES (environment): "-1" cannot be used; write a whole number from 0 to 100"#,
            #"SLUICE_LISTEN (environment): "8080" cannot be used; write an address to listen on such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080"#,
            #"SLUICE_UPSTREAM_KIND (environment): "gpt" cannot be used; write openai, dashscope, anthropic or ollama"#,
            #"SLUICE_UPSTREAMS_FILE (environment): the file /nowhere/at/all cannot be read; name a file that the process may read"#,
            #"SLUICE_MAX_MESSAGE (environment): "1" cannot be used; write a size such as 64KiB, 1MiB or a number of bytes, from 1KiB to 64MiB"#,
            #"SLUICE_UPSTREAM_URL (environment): "ftp://h" cannot be used; write a URL that begins with http:// or https://"#,
            #"SLUICE_AUTH (environment): "maybe" cannot be used; write none"#,
        ] {
            #expect(found.contains(expected))
        }
        #expect(Set(found).count == found.count)
        #expect(found.allSatisfy { !$0.contains("\n") })
    }

    @Test(arguments: [
        (
            ["SLUICE_UPSTREAM_URL": "http://h/v1", "SLUICE_UPSTREAM_KEY": "a", "SLUICE_UPSTREAM_KEY_FILE": "/etc/hostname"],
            "SLUICE_UPSTREAM_KEY_FILE"
        ),
        (["SLUICE_TLS_KEY_FILE": "/etc/hostname"], "SLUICE_TLS_KEY_FILE"), (["SLUICE_NAMESPACE": "a{b}"], "SLUICE_NAMESPACE"),
        (["SLUICE_WORKER_NAME": "a b"], "SLUICE_WORKER_NAME"), (["SLUICE_REDIS_URL": "redis://h:notaport"], "SLUICE_REDIS_URL"),
    ])
    func `conflicting settings are a fault`(environment: [String: String], name: String) {
        let found = faults(environment)
        #expect(found.count == 1)
        #expect(found.allSatisfy { $0.hasPrefix(name + " (environment): ") })
    }

    /// They are valid texts, but nothing would ever match or accept them.
    @Test(arguments: [
        ("SLUICE_ALLOWED_ORIGINS", "example.com", [:]), ("SLUICE_ALLOWED_ORIGINS", "https://*.example.com", [:]),
        ("SLUICE_ALLOWED_ORIGINS", "https://a,https://h/chat", [:]), ("SLUICE_ALLOWED_ORIGINS", "://h", [:]),
        ("SLUICE_UPSTREAM_KEY", "sk-a\nsk-b", ["SLUICE_UPSTREAM_URL": "http://h/v1"]),
        ("SLUICE_SPEECH_KEY", "sk a", ["SLUICE_SPEECH_URL": "http://h/v1"]),
        ("SLUICE_RECOGNITION_KEY", "sk-\u{1}", ["SLUICE_RECOGNITION_URL": "http://h/v1"]),
        ("SLUICE_RETRIEVAL_KEY", "schlüssel", ["SLUICE_RETRIEVAL_URL": "http://h"]),
        ("SLUICE_WEBHOOK_SECRET", "whsec_!", ["SLUICE_WEBHOOK_URL": "http://h"]),
    ])
    func `values that could never work are a fault`(name: String, value: String, others: [String: String]) {
        let found = faults(others.merging([name: value]) { $1 })
        #expect(found.count == 1 && found.allSatisfy { $0.hasPrefix(name + " (environment): ") }, "\(found)")
        #expect(name.contains("ORIGINS") || !found.contains { $0.contains(value) })
    }

    @Test func `origins of all forms are accepted`() {
        for origin in ["https://chat.example.com", "http://localhost:3000", "https://[::1]:8443/", "capacitor://localhost", "null"] {
            #expect(faults(["SLUICE_ALLOWED_ORIGINS": origin]) == [], "\(origin)")
        }
    }

    @Test func `missing required settings are faults`() {
        #expect(faults([:], node: .worker).count == 1)
        #expect(faults(["SLUICE_UPSTREAM_URL": "http://h/v1"], node: .worker) == [])
        #expect(faults([:], node: .gateway).count == 1)
        #expect(faults(["SLUICE_AUTH": "none"], node: .gateway) == [])
        #expect(faults(["SLUICE_AUTH": "none", "SLUICE_LISTEN": "0.0.0.0:80"], node: .gateway).count == 1)
        #expect(faults(["SLUICE_AUTH": "none", "SLUICE_LISTEN": "0.0.0.0:80", "SLUICE_AUTH_NONE_ANYWHERE": "1"], node: .gateway) == [])
    }

    /// Secrets in every place that may contain one must not appear in a listing, a log line or a fault.
    @Test func `secrets are never shown`() throws {
        let canary = "canary-7f3a91"
        var environment: [String: String] = [
            "SLUICE_REDIS_URL": "redis://user:\(canary)@h:notaport", "SLUICE_UPSTREAM_URL": "http://u:\(canary)@h?key=\(canary)",
        ]
        for setting in SettingTable.all where setting.isSecret { environment[setting.name] = canary }
        try withFile("\(canary)\nSLUICE_LEASE=\"\(canary)\" \(canary)\n") { path in
            let source = SettingsSource(environment: environment, file: path)
            var shown = ConfigCheckCommand.faults(of: source, node: nil).map(\.description)
            #expect(shown.count >= 3)
            for setting in SettingTable.all {
                if let value = source.value(setting.name) { shown.append(SettingsSource.shown(value.text, of: setting)) }
            }
            for reader in Setting.Reader.allCases {
                shown += NodeStart.effectiveSettings(of: source, for: reader).values.map(\.description)
            }
            #expect(shown.allSatisfy { !$0.contains(canary) })
        }
    }
}
