import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// The metrics of both nodes.
    @Suite struct MetricsTests {
        @Test func `the metrics of a known workload, and all names in dashboard and alerts exist`()
            async throws
        {
            try await withLab { lab in
                let worker = try await lab.worker("w1")
                let gateway = try await lab.gateway()
                let client = try await lab.client(gateway)
                for _ in 0..<3 { _ = try await client.request(model: lab.model("sim-n5-g1")).ended() }
                for script in ["sim-n5-g1-e400", "sim-n5-g1-e503"] { _ = try await client.request(model: lab.model(script)).ended() }
                let long = try await client.request(model: lab.model("sim-n5000-g10"))
                try await long.tokens(5)
                try await until("a heartbeat with the running job") {
                    let scrape = try await worker.scrape()
                    return scrape["sluice_jobs_in_flight"] == 1 && scrape["sluice_queue_pending{class=\"interactive\"}"] == 1
                        && scrape["sluice_slots_wanted"] == 1.0 / 256 && scrape["sluice_queue_lag{class=\"interactive\"}"] == 0
                }
                _ = try await client.interrupt(.string(long.id))
                let interrupted = try await long.ended()
                let counted = try #require(interrupted.last?["usage"]?["completion_tokens"]?.integer)
                // Ended by the claim: interrupted in the queue, or after the deadline.
                let front = try await FrontEnd(lab.redis)
                _ = try await front.redis.send(
                    "SET", "{sluice.0}:interrupt:p0-stopped", #"{"id":"p0-stopped","reason":"USER_STOP"}"#, "EX", "60")
                let unwanted = try await front.submit(model: lab.model("sim-n5-g1"), id: "p0-stopped")
                let late = try await front.submit(model: lab.model("sim-n5-g1"), fields: [("deadline_ms", 1_000)])
                #expect(try await unwanted.ended()["type"] == "interrupted")
                #expect(try await late.ended()["code"] == "deadline_exceeded")
                // In another partition than its id's.
                let stray = FrontEnd.job(id: "p7-stray", model: "sim-n5-g1")
                _ = try await front.redis.send("XADD", "{sluice.0}:queue:standard", "*", "job", stray)
                try await until("the entry of another partition to be a dead letter") {
                    try await front.redis.send("XLEN", "{sluice.0}:dead").string == "1"
                }
                await front.close()
                #expect(try await gateway.get("/v1/models").status == 401)
                let unknown = try await HTTPCall.post(
                    gateway.port, "/v1/jobs/p0-unknown/interrupt", [:], headers: ["authorization": "Bearer \(lab.key)"])
                #expect(unknown.status == 200)

                let work: [(series: String, value: Double)] = [
                    ("sluice_jobs_claimed_total", 6), (#"sluice_jobs_ended_total{outcome="finished"}"#, 3),
                    (#"sluice_jobs_ended_total{outcome="failed"}"#, 3), (#"sluice_jobs_ended_total{outcome="interrupted"}"#, 2),
                    (#"sluice_jobs_failed_total{code="deadline_exceeded"}"#, 1), ("sluice_entries_rejected_total", 1),
                    (#"sluice_jobs_dead_lettered_total{code="invalid_request"}"#, 1),
                    (#"sluice_jobs_dead_lettered_total{code="worker_lost"}"#, 0),
                    (#"sluice_interrupts_total{phase="queued",result="unopened"}"#, 1), ("sluice_speech_failed_total", 0),
                    (#"sluice_upstream_breaker_state{upstream="openai"}"#, 0), ("sluice_tokens_saved_total", 0),
                    ("sluice_cancel_messages_ignored_total", 0), (#"sluice_redis_reconnects_total{connection="commands"}"#, 0),
                    (#"sluice_redis_reconnects_total{connection="cancel"}"#, 0), ("sluice_metrics_series_refused_total", 0),
                    (#"sluice_jobs_failed_total{code="invalid_request"}"#, 1), (#"sluice_jobs_failed_total{code="overloaded"}"#, 1),
                    ("sluice_upstream_retries_total", 3), ("sluice_tokens_relayed_total", Double(15 + counted)),
                    ("sluice_tokens_after_interrupt_total", 0), (#"sluice_interrupts_total{phase="streaming",result="closed"}"#, 1),
                    ("sluice_interrupt_close_seconds_count", 1), (#"sluice_queue_wait_seconds_count{class="interactive"}"#, 6),
                    (#"sluice_time_to_first_token_seconds_count{class="interactive"}"#, 4),
                    (#"sluice_upstream_responses_total{status="200",upstream="openai"}"#, 4),
                    (#"sluice_upstream_responses_total{status="400",upstream="openai"}"#, 1),
                    (#"sluice_upstream_responses_total{status="503",upstream="openai"}"#, 4), ("sluice_takeovers_total", 0),
                    ("sluice_jobs_handed_back_total", 0), ("sluice_leases_lost_total", 0), ("sluice_slots", 256),
                    ("sluice_upstream_requests_open", 0), ("sluice_upstream_connections_open", 0),
                ]
                // The worker counts the last job after its end was delivered.
                try await until("the worker to have counted the last job") {
                    try await worker.scrape()[#"sluice_jobs_ended_total{outcome="interrupted"}"#] == 2
                }
                let done = try await worker.scrape()
                for (series, value) in work { #expect(done[series] == value, "\(series): \(done[series].map { "\($0)" } ?? "missing")") }
                #expect(done.sum("sluice_upstream_connections_total") == 9 && done.sum("sluice_interrupts_total") == 2)
                // The gauge is updated at the next heartbeat.
                try await until("the dead letter to be shown") { try await worker.scrape()["sluice_dead_letters"] == 1 }
                try Self.checkMeasurements(done, loops: ["upstream", "redis"])

                let served = try await gateway.scrape()
                let service: [(series: String, value: Double)] = [
                    (#"sluice_jobs_submitted_total{outcome="accepted"}"#, 6), ("sluice_gateway_sockets", 1),
                    ("sluice_sockets_opened_total", 1),
                    ("sluice_interrupt_seconds_count", 1), (#"sluice_interrupts_sent_total{result="stored"}"#, 1),
                    (#"sluice_interrupts_sent_total{result="unknown"}"#, 1),
                    (#"sluice_refusals_total{code="invalid_api_key",place="http"}"#, 1), ("sluice_slow_readers_closed_total", 0),
                    // REGISTER, six of REQUEST, INTERRUPT.
                    ("sluice_frames_received_total", 8),
                ]
                for (series, value) in service {
                    #expect(served[series] == value, "\(series): \(served[series].map { "\($0)" } ?? "missing")")
                }
                #expect(served["sluice_frames_sent_total"] ?? 0 >= 8)
                try Self.checkMeasurements(served, loops: ["gateway"])

                let known = done.names.union(served.names)
                for file in ["grafana-dashboard.json", "alerts.yaml"] {
                    let used = try Self.metrics(namedIn: file)
                    #expect(!used.isEmpty)
                    for name in used { #expect(known.contains(name), "\(file) names \(name), which no node has") }
                }
            }
        }

        @Test func `the dashboard has a query in every panel`() throws {
            let dashboard = try JSON(parsing: Array(try Self.text(of: "grafana-dashboard.json").utf8))
            let panels = try #require(dashboard["panels"]?.array)
            #expect(panels.count >= 8 && dashboard["title"]?.string == "Sluice")
            #expect(Set(panels.compactMap { $0["id"]?.integer }).count == panels.count)
            for panel in panels where panel["type"] != "row" {
                let expressions = (panel["targets"]?.array ?? []).compactMap { $0["expr"]?.string }
                #expect(!expressions.isEmpty, "\(panel["title"]?.string ?? "?")")
            }
        }

        /// Checks metrics without an exact value: build, Redis commands, event loops, and the buckets of interrupt times.
        private static func checkMeasurements(_ scrape: Scrape, loops: [String]) throws {
            #expect(scrape.sum("sluice_build_info") == 1)
            #expect(scrape[#"sluice_redis_command_seconds_count{connection="commands"}"#] ?? 0 > 0)
            for loop in loops {
                #expect(scrape[#"sluice_event_loop_delay_seconds_count{loop="\#(loop)"}"#] ?? 0 > 0, "\(loop)")
            }
            #expect(scrape["process_resident_memory_bytes"] ?? 0 > 1_000_000 && scrape["process_cpu_seconds_total"] ?? 0 > 0)
            guard loops.contains("upstream") else { return }
            for bound in ["0.0001", "0.001", "0.1", "10"] {
                #expect(scrape["sluice_interrupt_close_seconds_bucket{le=\"\(bound)\"}"] != nil, "\(bound)")
            }
            #expect(scrape[#"sluice_interrupt_close_seconds_bucket{le="+Inf"}"#] == 1)
        }

        private static func text(of file: String) throws -> String {
            return try String(contentsOf: Repository.root.appending(path: "docker/\(file)"), encoding: .utf8)
        }

        /// The metric families in a file with PromQL; histograms without suffix.
        private static func metrics(namedIn file: String) throws -> Set<String> {
            var names: Set<String> = []
            for match in try text(of: file).matches(of: /(?:sluice|process)_[a-z_]+/) {
                names.insert(String(match.output).replacing(/_(?:bucket|sum|count)$/, with: ""))
            }
            return names
        }
    }
}
