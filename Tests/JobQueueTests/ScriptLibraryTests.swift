import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// Scripts contain the functions that they use, and define rarely used ones when a call needs them.
@Suite struct ScriptLibraryTests {
    private static let library = ScriptLibrary(
        Array(
            """
            -- A comment that names unused and twice.
            local BASE, STEP = 10, 1

            -- Uses BASE.
            local function add(number) return number + BASE end

            local function twice(number)
                -- A comment.
                return add(add(number))
            end

            local function unused() return twice(1) end
            """.utf8))

    @Test func `a script contains what it uses, directly or not`() {
        let script = Self.library.script("s", Array("-- unused\nreturn twice(tonumber(ARGV[1]))\n".utf8))
        #expect(
            script.source == """
                local BASE, STEP = 10, 1
                local function add(number) return number + BASE end
                local function twice(number)
                    return add(add(number))
                end
                return twice(tonumber(ARGV[1]))

                """)
        #expect(Self.library.script("s", Array("return 1".utf8)).source == "return 1\n")
    }

    @Test func `rarely used functions work like the others`() async throws {
        let body = Array("if ARGV[1] == '0' then return add(1) end\nreturn twice(ARGV[1]) + twice(1)".utf8)
        let script = Self.library.script("s", body, rarely: ["twice", "add", "missing"])
        // `add` is not defined twice: all of its uses are rare.
        #expect(script.source.split(separator: "local function add(number)").count == 2)
        let partly = Self.library.script("s", body, rarely: ["twice"])
        #expect(partly.source.hasPrefix("local BASE") && partly.source.contains("local function rarely()"))
        try await withRedis { redis in
            for source in [script.source, partly.source] {
                let replies = [try await redis.command("EVAL", source, "0", "0"), try await redis.command("EVAL", source, "0", "5")]
                #expect(replies == [.integer(11), .integer(46)])
            }
        }
    }

    @Test func `the scripts of jobs contain a part of the functions`() {
        func contains(_ script: RedisScript, _ name: String) -> Bool { script.source.contains("local function \(name)(") }
        #expect(contains(Scripts.take, "set_lease") && !contains(Scripts.take, "conclude"))
        #expect(contains(Scripts.depth, "now_ms") && !contains(Scripts.depth, "set_lease") && !contains(Scripts.logPage, "now_ms"))
        #expect(contains(Scripts.claim, "conclude") && contains(Scripts.claim, "rarely"))
        for script in Scripts.ofWorker + Scripts.ofGateway { #expect(!script.source.contains("\n--"), "\(script.name)") }
    }
}
