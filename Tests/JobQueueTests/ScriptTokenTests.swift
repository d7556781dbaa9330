import Contract
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// The script's estimate for a job whose worker was lost.
struct ScriptTokenTests {
    @Test func `the scripts estimate as nodes do`() async throws {
        let functions = String(decoding: PackageResources.shared_lua + PackageResources.usage_lua, as: UTF8.self)
        let odd = [
            "", "findUserByID2x x2Y aÀB бA 5kg  5, 12345.6 \t7", "naïve Việt Nam ไทย 한국어 «x» “y”… 👍🏽\0\u{7f}\r\n--\n  --",
            String(repeating: "w ", count: 40_000),
        ]
        try await withRedis { redis in
            for text in TokenCount.all.map(\.text) + odd {
                var counter = TokenEstimator()
                counter.add(text)
                let reply = try await redis.command("EVAL", functions + "\nreturn text_tokens(ARGV[1])", "0", text)
                #expect(reply == .integer(counter.tokens), "\(text.prefix(80))")
            }
            // The rest of a long text counts by its length.
            let long = String(repeating: "word ", count: 1 << 18)
            let reply = try await redis.command("EVAL", functions + "\nreturn text_tokens(ARGV[1])", "0", long)
            #expect((200_000...300_000).contains(reply.integer ?? 0))
        }
    }
}
