import Contract
import Foundation
import TestSupport
import Testing

extension Journeys {
    /// `GET /dashboard` and what it asks.
    @Suite struct DashboardTests {
        private static let admin = "admin-key-0123456789"
        private static let viewer = "viewer-key-0123456789"
        private static let keys: [String: String?] = ["SLUICE_ADMIN_KEY": admin, "SLUICE_VIEWER_KEY": viewer]
        /// Screenshots stay here, for people to look at.
        private static let artifacts = NSTemporaryDirectory() + "/sluice-test-artifacts"

        private func ask(_ gateway: Node, _ path: String, _ key: String?, post: Bool = false, origin: String? = nil) async throws
            -> HTTPAnswer
        {
            var headers: [String: String] = [:]
            headers["authorization"] = key.map { "Bearer \($0)" }
            headers["origin"] = origin
            return try await HTTPCall.send(post ? .POST : .GET, gateway.port, "/dashboard" + path, headers: headers)
        }

        @Test func `whoever has no key sees nothing, who may look cannot act, who may act can`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1")
                let gateway = try await lab.gateway("g1", Self.keys)
                let front = try await FrontEnd(lab.redis)
                let job = try await front.submit(model: lab.model("sim-n5000-g10"), id: "p0-long")
                try await job.tokens(3)

                let page = try await ask(gateway, "", nil)
                #expect(page.status == 200 && !page.body.contains("w1") && !page.body.contains(Self.admin))
                #expect(page.headers["content-security-policy"]?.contains("default-src 'none'; script-src 'sha256-") == true)
                for key in [nil, "wrong-key-0123456789", lab.key] { #expect(try await ask(gateway, "/snapshot", key).status == 401) }
                #expect(try await ask(gateway, "/snapshot", Self.admin, origin: "http://elsewhere.example").status == 403)

                let seen = try await ask(gateway, "/snapshot", Self.viewer, origin: "http://127.0.0.1:\(gateway.port)")
                #expect(seen.status == 200 && seen.json?["role"] == "viewer")
                #expect(seen.json?["snapshot"]?["queues"]?[1]?["running"] == 1)
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
                #expect(try await ask(gateway, "/workers/nobody/drain", Self.admin, post: true).status == 404)
                #expect(try await ask(gateway, "/workers/w1/drain", Self.admin, post: true).status == 200)
                #expect(try await worker.ended(within: .seconds(20)) == .exited(0))
                await worker.destroy()

                let closed = try await lab.gateway("g2")
                for path in ["", "/snapshot"] {
                    let off = try await ask(closed, path, Self.admin)
                    #expect(off.status == 404 && off.json?["error"]?["code"] == "dashboard_off")
                }
                await front.close()
            }
        }

        @Test(
            .enabled("needs chromium and python3 (apt-get install chromium python3)") {
                Chromium.path != nil && Program.find("python3") != nil
            })
        func `shows the deployment live, finds a job, and its buttons interrupt and drain`() async throws {
            let (chromium, python) = (try #require(Chromium.path), try #require(Program.find("python3")))
            try await withLab { lab in
                let worker = try await lab.worker("w1")
                let gateway = try await lab.gateway("g1", Self.keys)
                let front = try await FrontEnd(lab.redis)
                let job = try await front.submit(model: lab.model("sim-n5000-g10"), id: "p0-long")
                try await job.tokens(3)
                let outcome = try await Program.run(
                    python,
                    [
                        "-c", DashboardScript.text, chromium, "http://127.0.0.1:\(gateway.port)/dashboard", Self.admin, Self.viewer,
                        lab.folder.path, job.id,
                    ], environment: Executable.environment, deadline: .seconds(50))
                #expect(outcome.succeeded && outcome.output.contains("all as it should be"), "\(outcome.output.suffix(4_000))")
                #expect(try await job.ended()["type"] == "interrupted")
                #expect(try await worker.ended(within: .seconds(20)) == .exited(0))
                await worker.destroy()
                await front.close()
                try FileManager.default.createDirectory(atPath: Self.artifacts, withIntermediateDirectories: true)
                for name in ["desktop.png", "telephone.png"] {
                    let image = try #require(FileManager.default.contents(atPath: lab.folder.file(name)), "\(name) was taken")
                    try image.write(to: URL(fileURLWithPath: "\(Self.artifacts)/dashboard-\(name)"))
                }
            }
        }
    }
}

/// Drives a headless Chromium through the dashboard.
private enum DashboardScript {
    /// Arguments: chromium, the page's address, the admin's key, the viewer's, folder for the profile and the screenshots, a running job.
    static let text =
        BrowserScript.text + #"""
            chromium, url, admin, viewer, folder, job = sys.argv[1:]

            def enter(page, key):
                page.until("document.readyState === 'complete' && !document.getElementById('gate').hidden")
                page.type("#key", key)
                page.press("Enter", 13, "\r")

            def confirm(page):
                page.until("document.getElementById('confirm').open")
                page.evaluate("document.getElementById('yes').click()")

            page = Browser(chromium, folder)
            try:
                page.call("Page.navigate", url=url)
                enter(page, "not-a-key-0123456789")
                page.until("document.getElementById('gate-error').textContent.includes('not known')")
                page.faults.clear()  # The browser itself tells of a 401.

                # Who may only look has no buttons that act.
                enter(page, viewer)
                page.until("!document.getElementById('main').hidden && document.querySelector('#workers .name')?.textContent === 'w1'")
                assert page.evaluate("!document.getElementById('role').hidden")
                assert page.evaluate("[...document.querySelectorAll('#queues button, #workers button, #jobs td:last-child button')].every(button => button.hidden)")
                page.evaluate("document.getElementById('forget').click()")
                assert page.evaluate("document.getElementById('main').hidden && sessionStorage.length === 0")

                enter(page, admin)
                page.until("!document.getElementById('main').hidden && document.querySelectorAll('.chart path.series').length >= 4")
                page.until("document.querySelectorAll('.chart')[0].querySelector('path.series').getAttribute('d').split('L').length > 2")
                assert page.evaluate("document.querySelector('#jobs .name').textContent") == job, "a job's id is text"
                assert page.evaluate("document.querySelectorAll('#jobs b').length") == 0

                # A job found by its id.
                page.type("#job", job)
                page.evaluate("document.querySelector('#search button').click()")
                page.until("[...document.querySelectorAll('#story dd')].some(fact => fact.textContent === 'running')")
                assert "started by w1" in page.evaluate("document.querySelector('#story ol').innerText")
                page.call("Emulation.setDeviceMetricsOverride", width=1280, height=1000, deviceScaleFactor=1, mobile=False)
                page.screenshot("desktop")
                page.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
                assert page.evaluate("document.documentElement.scrollWidth") <= 390
                page.screenshot("telephone")

                # Asked first; no is no.
                page.evaluate("document.querySelector('#queues button').click()")
                page.until("document.getElementById('confirm').open")
                page.evaluate("document.querySelector('#confirm button').click()")
                page.until("!document.getElementById('confirm').open")
                page.evaluate("document.querySelector('#queues button').click()")
                confirm(page)
                page.until("document.querySelector('#queues .tag').textContent === 'paused'")
                page.evaluate("document.querySelector('#queues button').click()")
                confirm(page)
                page.until("document.querySelector('#queues .tag').textContent === 'open'")

                page.evaluate("document.querySelector('#jobs td:last-child button').click()")
                confirm(page)
                page.until("[...document.querySelectorAll('#story dd')].some(fact => fact.textContent === 'interrupted')")
                page.evaluate("document.querySelector('#workers td:last-child button').click()")
                confirm(page)
                page.until("!!document.querySelector('#workers .empty')")
                assert not page.faults, page.faults
                print("all as it should be")
            finally:
                page.process.kill()
                page.process.wait()
            """#
}
