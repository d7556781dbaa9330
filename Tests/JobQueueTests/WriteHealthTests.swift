import RedisClient
import Testing

@testable import JobQueue

@Suite struct WriteHealthTests {
    @Test(arguments: [
        ("OOM command not allowed when used memory > 'maxmemory'.", "OOM"),
        ("MISCONF Redis is configured to save RDB snapshots", "MISCONF"),
        ("ERR READONLY You can't write against a read only replica.", "READONLY"),
        ("NOREPLICAS Not enough good replicas to write.", "NOREPLICAS"), ("CLUSTERDOWN The cluster is down", "CLUSTERDOWN"),
    ])
    func `a rejection of all writes is a problem until a write is accepted`(text: String, code: String) {
        let health = WriteHealth()
        health.record(RedisError(.server, text))
        #expect(health.problem == "Redis rejects writes (\(code))")
        // The connection reports these itself.
        health.record(RedisError(.timeout, "no reply"))
        #expect(health.problem != nil)
        health.record(nil)
        #expect(health.problem == nil)
        // After the deadline of a command that the connection has repeated.
        health.record(RedisError(.unavailable, "not executed within the deadline: \(text)", refusal: text))
        #expect(health.problem == "Redis rejects writes (\(code))")
        health.record(nil)
        #expect(WriteHealth.rejection(in: [.integer(1), .error(text)])?.message == text)
    }

    @Test(arguments: ["WRONGTYPE Operation against a key", "ERR unknown command", "NOSCRIPT No matching script", ""])
    func `an error of one command is none`(text: String) {
        let health = WriteHealth()
        health.record(RedisError(.server, text))
        #expect(health.problem == nil && WriteHealth.rejection(in: [.error(text), .null]) == nil)
    }
}
