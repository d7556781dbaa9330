import Foundation
import JSONCodec
import NIOHTTP1
import TestSupport
import Testing

extension FaultJourneys {
    @Suite struct WebhookTests {
        /// A tenants file with the receivers of both tenants.
        private func write(_ lab: Lab, _ path: String, a: Int?, b: Int?) throws {
            func entry(_ name: String, _ port: Int?) -> String {
                "  - name: \(name)\n" + (port.map { "    webhook_url: http://127.0.0.1:\($0)/hook\n" } ?? "")
            }
            try "tenants:\n\(entry("tenant-a", a))\(entry("tenant-b", b))".write(toFile: path, atomically: true, encoding: .utf8)
        }

        private func create(_ gateway: Node, key: String) async throws -> String {
            let answer = try await HTTPCall.send(
                .POST, gateway.port, "/v1/responses", headers: ["authorization": "Bearer \(key)"],
                body: #"{"model":"sim-n1-g1","input":"x","background":true}"#)
            return try #require(answer.json?["id"]?.string, "\(answer.body)")
        }

        @Test func `a slow receiver delays no other tenant, and webhooks survive a worker and follow a reload`() async throws {
            let slow = try await CannedUpstream.start([.init(word: "response.completed", bytes: "", closes: false)])
            let done = CannedUpstream.Answer(
                word: "response.completed", bytes: "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            let quick = try await CannedUpstream.start([done])
            try await withLab { lab in
                let file = lab.folder.file("tenants.yaml")
                try write(lab, file, a: slow.port, b: nil)
                let settings: [String: String?] = ["SLUICE_TENANTS_FILE": file, "SLUICE_WEBHOOK_ALLOW": "127.0.0.1"]
                let workers = try await lab.workers(2, settings)
                let gateway = try await lab.gateway()
                var ids: [String] = []
                for _ in 0..<12 { ids.append(try await create(gateway, key: lab.key)) }
                // Each worker gives one tenant four of its sixteen places.
                try await until("all places of the slow receiver's tenant to be taken") { slow.connections.most >= 8 }
                try write(lab, file, a: slow.port, b: quick.port)
                for worker in workers { kill(try #require(worker.processID), SIGHUP) }
                let other = try await create(gateway, key: lab.otherKey)
                try await until("the other tenant's webhook") { quick.requests.contains { $0.contains(other) } }
                // One that is over may still be open here when the next one comes.
                #expect(slow.connections.most <= 8 + slow.connections.closed)
                await workers[0].kill9()
                slow.replace([done])
                let before = slow.requests.count
                // Those that the killed worker was sending are sent by the other one.
                try await until("all webhooks") { ids.allSatisfy { id in slow.requests.dropFirst(before).contains { $0.contains(id) } } }
            }
            await slow.close()
            await quick.close()
        }
    }
}
