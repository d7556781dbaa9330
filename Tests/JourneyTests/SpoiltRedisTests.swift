import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension FaultJourneys {
    /// Redis sends corrupt replies or has corrupt values.
    @Suite struct SpoiltRedisTests {
        @Test func `corrupt replies end no process, and jobs run afterwards`() async throws {
            try await withLab { lab in
                let proxy = try await SpoilingProxy.start(to: lab.redis.port, seed: 1)
                let extra: [String: String?] = ["SLUICE_REDIS_URL": proxy.url, "SLUICE_LOG_LEVEL": "error"]
                let worker = try await lab.worker("w1", extra)
                let gateway = try await lab.gateway("g1", extra)
                let headers = ["authorization": "Bearer \(lab.key)"]
                func submit() async throws -> HTTPAnswer {
                    let body: JSON = ["request": ["model": .string(lab.model("sim-n3-g1"))]]
                    return try await HTTPCall.post(gateway.port, "/v1/jobs", body, headers: headers)
                }
                #expect(try await submit().status == 202)
                for (every, count) in [(40, 10), (10, 30), (3, 30), (1, 10)] {
                    proxy.spoil(every: every)
                    let target = proxy.spoilt + count
                    try await until("\(count) more replies to be spoilt") {
                        _ = try await submit()
                        return proxy.spoilt >= target
                    }
                    #expect(worker.isRunning && gateway.isRunning)
                }
                proxy.spoil(every: nil)
                try await gateway.ready()
                try await worker.ready()
                // Ready nodes run jobs at once.
                let client = try await lab.client(gateway)
                let end = try await client.request(model: lab.model("sim-n3-g1")).ended()
                #expect(end.end == .finished, "\(end.last?.text ?? "")")
                #expect(try await submit().status == 202)
                #expect(worker.isRunning && gateway.isRunning)
                #expect(!worker.log.contains("drain requested by an operator"))
                await proxy.close()
            }
        }

        @Test func `a queue key of another type stops only its class and is logged once`() async throws {
            try await withLab { lab in
                try await lab.redis.command("SET", "{sluice.0}:queue:batch", "x")
                let worker = try await lab.worker("w1", ["SLUICE_LEASE": "3s", "SLUICE_DRAIN_TIMEOUT": "10ms"])
                let client = try await lab.client(lab.gateway())
                for _ in 0..<3 { #expect(try await client.request(model: lab.model("sim-n3-g1")).ended().end == .finished) }
                #expect(worker.log.components(separatedBy: "a queue cannot be read").count == 2)
                #expect(try await worker.get("/metrics").body.contains(#"sluice_queue_unreadable_total{class="batch"}"#))
                // Repaired by an operator.
                try await lab.redis.command("DEL", "{sluice.0}:queue:batch")
                let request = #"{"model":"\#(lab.model("sim-n3-g1"))","messages":[{"role":"user","content":"hi"}]}"#
                let body = #"{"id":"p0-batch","request":\#(request)}"#
                try await lab.redis.command("XADD", "{sluice.0}:queue:batch", "*", "job", body)
                try await until("the job to end") { try await lab.record("p0-batch")["state"] == "finished" }
                // A drained worker cannot return a job to an overwritten queue.
                let long = #"{"model":"\#(lab.model("sim-n5000-g20"))","messages":[{"role":"user","content":"hi"}]}"#
                try await lab.redis.command("XADD", "{sluice.0}:queue:batch", "*", "job", #"{"id":"p0-long","request":\#(long)}"#)
                try await until("the job to run") { try await lab.record("p0-long")["state"] == "running" }
                try await lab.redis.command("SET", "{sluice.0}:queue:batch", "x")
                worker.terminate()
                try await until("the job to fail") { try await lab.record("p0-long")["state"] == "failed" }
                #expect(try await lab.record("p0-long")["code"] == "internal")
            }
        }

        /// Another program writes to the logs of running jobs, which end all the same, and as a whole.
        @Test(arguments: [false, true]) func `jobs whose logs were overwritten end`(isInterrupted: Bool) async throws {
            let changes: [[String]] = [
                ["XADD", "*", "e", "{}"], ["XADD", "18446744073709551615-1", "e", "{}"], ["XADD", "5-5", "x", "y"],
                ["XADD", "1-9999999", "x", "y"],
                ["XSETID", "99-99"], ["XSETID", "18446744073709551615-18446744073709551615"], ["XTRIM", "MAXLEN", "0"], ["DEL"],
                ["SET", "x"],
            ]
            try await withLab { lab in
                let worker = try await lab.worker("w1", ["SLUICE_LEASE": "3s"])
                let request = #"{"model":"\#(lab.model("sim-n60-g50"))","messages":[{"role":"user","content":"hi"}]}"#
                for (number, change) in changes.enumerated() {
                    let (id, log) = ("p0-\(number)", "{sluice.0}:log:p0-\(number)")
                    try await lab.redis.command("XADD", "{sluice.0}:queue:standard", "*", "job", #"{"id":"\#(id)","request":\#(request)}"#)
                    try await until("output") { try await lab.redis.command("XLEN", log).integer ?? 0 > 3 }
                    try await lab.redis.send([change[0], log] + change.dropFirst())
                    guard isInterrupted else { continue }
                    let interrupt = #"{"id":"\#(id)","signal":"INTERRUPT","reason":"USER_STOP"}"#
                    try await lab.redis.command("SET", "{sluice.0}:interrupt:\(id)", interrupt, "EX", "86400", "NX")
                    try await lab.redis.command("PUBLISH", "{sluice.0}:cancel", interrupt)
                }
                for (number, change) in changes.enumerated() {
                    let id = "p0-\(number)"
                    let record = try await until("the end of \(id) after \(change)") {
                        let record = try await lab.record(id)
                        return ["finished", "interrupted"].contains(record["state"]) ? record : nil
                    }
                    #expect(record["state"] == (isInterrupted ? "interrupted" : "finished"), "\(change)")
                    // A trimmed log is not noticed: nothing in it contradicts the worker.
                    guard !isInterrupted, change[0] != "XTRIM" else { continue }
                    #expect(try await text(in: "{sluice.0}:log:\(id)", lab) == (0..<60).map { " w\($0)" }.joined(), "\(change)")
                }
                try await worker.ready()
            }
        }

        /// Another program deletes keys of a running job: its record, with others.
        @Test(arguments: [["queue"], ["log", "queue"], ["log"]])
        func `a running job whose record was deleted ends, or begins anew`(others: [String]) async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", ["SLUICE_LEASE": "3s"])
                let client = try await lab.client(lab.gateway())
                let model = lab.model(others == ["log"] ? "sim-n100-g50" : "sim-n100000-g10")
                let request = try await client.request(model: model)
                try await request.tokens(5)
                let job = try #require(request.checker.job)
                var keys = ["{sluice.0}:job:\(job)"]
                if others.contains("log") { keys.append("{sluice.0}:log:\(job)") }
                if others.contains("queue") { keys.append("{sluice.0}:queue:interactive") }
                try await lab.redis.send(["DEL"] + keys)
                let end = try await request.ended()
                if others == ["log"] {
                    // The entry is left. A second attempt with the ids of the first one would have been spliced to it.
                    #expect(end.end == .finished && request.checker.restarts == 1 && end.text == SimulatorText.tokens(100))
                } else {
                    #expect(end.end == .failed && end.last?["retryable"] == true, "\(end.last?.text ?? "")")
                    try await until("the end in the record") { try await lab.record(job)["state"] == "failed" }
                }
                try await until("the upstream to be closed") { try await lab.upstream().running == 0 }
                #expect(client.problems.isEmpty, "\(client.problems)")
            }
        }

        /// Its worker still runs it, and would claim it again after a lease.
        @Test func `an interrupt holds although the record of the job was deleted`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", ["SLUICE_LEASE": "5s"])
                let client = try await lab.client(lab.gateway())
                let model = lab.model("sim-n100000-g10")
                let request = try await client.request(model: model)
                try await request.tokens(5)
                let job = try #require(request.checker.job)
                try await lab.redis.command("DEL", "{sluice.0}:job:\(job)")
                let receipt = try await client.interrupt(.string(request.id))
                #expect(receipt["status"] == "SUCCESS")
                let end = try await request.ended()
                #expect(end.end == .interrupted, "\(end.last?.text ?? "")")
                #expect(try await lab.record(job)["state"] == "interrupted")
                #expect(try await lab.endedRequest(0, model: model).end == .clientClosed)
                #expect(try await lab.upstream().total == 1)
                #expect(client.problems.isEmpty, "\(client.problems)")
            }
        }

        /// The text of the last attempt in a log.
        private func text(in log: String, _ lab: Lab) async throws -> String {
            var text = ""
            for entry in try await lab.redis.command("XRANGE", log, "-", "+").array ?? [] {
                let json = entry.array?.last?.array?.last?.string ?? ""
                guard let event = try? JSON(parsing: json) else { continue }
                switch event["type"]?.string {
                case "started": text = ""
                case "text": text += event["text"]?.string ?? ""
                default: break
                }
            }
            return text
        }

        /// `SWIFT_BACKTRACE` as the images, manifests and the Procfile set it.
        @Test func `a crashed node releases its port at once`() async throws {
            try await withLab(simulator: false) { lab in
                let setting = try Self.shippedBacktraceSetting()
                let gateway = try await lab.gateway("g1", ["SWIFT_BACKTRACE": setting])
                let process = try #require(gateway.processID)
                gateway.expectCrash()
                kill(process, SIGSEGV)
                // The backtracer is off, so the default action of the signal ends the process.
                #expect(try await gateway.ended() == .signalled(SIGSEGV))
                #expect(!gateway.log.contains("Program crashed"))
            }
        }

        private static func shippedBacktraceSetting() throws -> String {
            var settings: Set<String> = []
            for file in [
                "docker/Dockerfile", "docker/compose.yaml", "docker/kubernetes/gateway.yaml", "docker/kubernetes/worker.yaml", "Procfile",
            ] {
                let text = try String(contentsOf: Repository.root.appending(path: file), encoding: .utf8)
                let found = text.matches(of: /SWIFT_BACKTRACE[":=, a-z]*(enable=[a-z,=-]+)/).map { String($0.output.1) }
                #expect(!found.isEmpty, "\(file)")
                settings.formUnion(found)
            }
            #expect(settings.count == 1)
            return try #require(settings.first)
        }
    }
}
