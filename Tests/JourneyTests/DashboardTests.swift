import Contract
import JSONCodec
import NIOHTTP1
import TestSupport
import Testing

extension Journeys {
    /// `GET /dashboard` and the requests of its script.
    @Suite struct DashboardTests {
        private static let admin = "admin-key-0123456789"
        private static let viewer = "viewer-key-0123456789"
        private static let keys: [String: String?] = ["SLUICE_ADMIN_KEY": admin, "SLUICE_VIEWER_KEY": viewer]

        private func ask(_ gateway: Node, _ path: String, _ key: String?, post: Bool = false, origin: String? = nil) async throws
            -> HTTPAnswer
        {
            var headers: [String: String] = [:]
            headers["authorization"] = key.map { "Bearer \($0)" }
            headers["origin"] = origin
            return try await HTTPCall.send(post ? .POST : .GET, gateway.port, "/dashboard" + path, headers: headers)
        }

        @Test func `keys, viewers and administrators`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1")
                let gateway = try await lab.gateway("g1", Self.keys)
                let front = try await FrontEnd(lab.redis)
                let job = try await front.submit(model: lab.model("sim-n5000-g10"), id: "p0-long")
                try await job.tokens(3)

                let page = try await ask(gateway, "", nil)
                #expect(page.status == 200 && !page.body.contains("w1") && !page.body.contains(Self.admin))
                #expect(page.headers["content-security-policy"]?.contains("default-src 'none'; script-src 'sha256-") == true)
                for key in [nil, "wrong-key-0123456789", lab.key] {
                    for path in ["/snapshot", "/usage", "/redis"] { #expect(try await ask(gateway, path, key).status == 401) }
                }
                #expect(try await ask(gateway, "/snapshot", Self.admin, origin: "http://elsewhere.example").status == 403)

                let seen = try await ask(gateway, "/snapshot", Self.viewer, origin: "http://127.0.0.1:\(gateway.port)")
                #expect(seen.status == 200 && seen.json?["role"] == "viewer")
                #expect(seen.json?["snapshot"]?["queues"]?[1]?["running"] == 1)
                let server = try await ask(gateway, "/redis", Self.viewer).json
                #expect(server?["kind"] == "server" && server?["shards"]?[0]?["reachable"] == true, "\(server?.text ?? "")")
                let story = try await ask(gateway, "/jobs/p0-long", Self.viewer)
                #expect(story.status == 200 && story.json?["state"] == "running" && !story.body.contains(lab.prompt), "never the prompt")
                #expect(try await ask(gateway, "/jobs/p0-unknown", Self.viewer).status == 404)
                for path in ["/jobs/p0-long/interrupt", "/workers/w1/drain", "/queues/batch/pause", "/queues/batch/resume"] {
                    let refused = try await ask(gateway, path, Self.viewer, post: true)
                    #expect(refused.status == 403 && refused.json?["error"]?["code"] == "read_only", "\(path): \(refused)")
                    #expect(try await ask(gateway, path, nil, post: true).status == 401)
                    #expect(try await ask(gateway, path, Self.admin).status == 405, "looking never acts")
                }

                #expect(try await ask(gateway, "/queues/batch/pause", Self.admin, post: true).json?["changed"] == true)
                #expect(try await ask(gateway, "/snapshot", Self.admin).json?["snapshot"]?["queues"]?[2]?["paused"] == true)
                #expect(try await ask(gateway, "/queues/batch/resume", Self.admin, post: true).json?["paused"] == false)
                #expect(try await ask(gateway, "/queues/express/pause", Self.admin, post: true).status == 404)
                let interrupted = try await ask(gateway, "/jobs/p0-long/interrupt", Self.admin, post: true)
                #expect(interrupted.json == ["id": "p0-long", "state": "running", "status": "SUCCESS"])
                #expect(try await job.ended()["type"] == "interrupted")
                #expect(try await ask(gateway, "/jobs/p0-long/interrupt", Self.admin, post: true).json?["status"] == "FAILED")
                let usage = try await ask(gateway, "/usage", Self.viewer).json
                // The test may run at midnight.
                let days = ["today", "yesterday"].compactMap { usage?["tenants"]?[0]?[$0]?["interrupted"]?.integer }
                #expect(days.reduce(0, +) == 1 && days.count == 2 && usage?["further_tenants"] == 0, "\(usage?.text ?? "")")
                #expect(try await ask(gateway, "/workers/nobody/drain", Self.admin, post: true).status == 404)
                #expect(try await ask(gateway, "/workers/w1/drain", Self.admin, post: true).status == 200)
                #expect(try await worker.ended() == .exited(0))
                await worker.destroy()

                let closed = try await lab.gateway("g2")
                for path in ["", "/snapshot", "/usage", "/redis"] {
                    let off = try await ask(closed, path, Self.admin)
                    #expect(off.status == 404 && off.json?["error"]?["code"] == "dashboard_off")
                }
                await front.close()
            }
        }

        @Test(.needs(.chromium, .python))
        func `shows the deployment live, finds a job, and its buttons interrupt and drain`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1")
                let gateway = try await lab.gateway("g1", Self.keys)
                let front = try await FrontEnd(lab.redis)
                let job = try await front.submit(model: lab.model("sim-n5000-g10"), id: "p0-long")
                try await job.tokens(3)
                try await ScriptFile.dashboard.run(
                    python: TestProgram.python.require(),
                    [
                        TestProgram.chromium.require(), "http://127.0.0.1:\(gateway.port)/dashboard", Self.admin, Self.viewer,
                        lab.folder.path, job.id,
                    ])
                #expect(try await job.ended()["type"] == "interrupted")
                #expect(try await worker.ended() == .exited(0))
                await worker.destroy()
                await front.close()
                try Screenshots.keep(["desktop", "phone"], of: "dashboard", from: lab.folder)
            }
        }
    }
}
