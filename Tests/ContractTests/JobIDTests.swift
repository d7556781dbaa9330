import Contract
import Testing

struct JobIDTests {
    @Test(arguments: ["a", "p0-01ARZ3NDEKTSV4RRFFQ69G5FAV", "A.b_c:9-", "0", ":", String(repeating: "x", count: 128), "ü", "日本-ключ-🦀"])
    func `an id has 1 to 128 permitted characters`(text: String) { #expect(JobID(text)?.rawValue == text) }

    @Test(arguments: [
        "", " ", "a b", "a\n", "\0", "\u{7F}", "a\tb", "ü b", "a\u{A0}b", "a\u{85}b", "a\u{200B}b", "ü{b}", "a{b}", "a/b", "a;b", "a@b",
        "a`b", "a\u{202E}b",
        String(repeating: "x", count: 129),
    ])
    func `empty, long or invalid text is not an id`(text: String) { #expect(JobID(text) == nil) }

    @Test func `ids are compared as bytes`() throws {
        let (composed, decomposed) = (try #require(JobID("\u{E9}")), try #require(JobID("e\u{301}")))
        #expect(composed.rawValue == decomposed.rawValue && composed != decomposed)
        #expect(Set([composed, decomposed]).count == 2)
    }

    @Test func `a generated id is a ULID with its partition`() {
        for partition in [0, 7, 12_345] {
            let id = JobID(partition: partition, milliseconds: 1_763_800_000_000)
            let parts = id.rawValue.split(separator: "-")
            #expect(parts.count == 2 && parts[0] == "p\(partition)")
            #expect(id.partition(of: 3) == partition)
            #expect(parts[1].count == 26 && parts[1].allSatisfy { "0123456789ABCDEFGHJKMNPQRSTVWXYZ".contains($0) })
        }
    }

    @Test func `the first ten digits encode the time`() {
        // 1469918176385 ms is the specification's example, "01ARYZ6S41".
        #expect("\(ULID(milliseconds: 1_469_918_176_385))".hasPrefix("01ARYZ6S41"))
        #expect("\(ULID(milliseconds: 0))".hasPrefix("0000000000"))
        #expect("\(ULID(milliseconds: 0xFFFF_FFFF_FFFF))".hasPrefix("7ZZZZZZZZZ"))
    }

    @Test func `later ids sort after earlier ones`() {
        var last = ""
        for milliseconds in stride(from: UInt64(1), to: 1 << 47, by: 1 << 40 - 12_345) {
            let text = "\(ULID(milliseconds: milliseconds))"
            #expect(text > last)
            last = text
        }
    }

    @Test func `ids of one millisecond differ, in every digit of their random part`() {
        var seen: Set<String> = []
        var digits = [Set<Character>](repeating: [], count: 16)
        for _ in 0..<20_000 {
            let text = "\(ULID(milliseconds: 5))"
            #expect(seen.insert(text).inserted)
            for (index, digit) in text.suffix(16).enumerated() { digits[index].insert(digit) }
        }
        for (index, seen) in digits.enumerated() { #expect(seen.count == 32, "random digit \(index) takes \(seen.count) values") }
    }

    /// Redis Cluster specification, appendix A; slots as returned by `CLUSTER KEYSLOT` (crc16 mod 16384).
    @Test(arguments: [("123456789", 0x31C3), ("", 0), ("foo", 0xAF96), ("bar", 0x93C5), ("hello", 0xC362)])
    func `CRC16 as in Redis Cluster`(text: String, value: Int) {
        #expect(Int(Partition.crc16(text.utf8)) == value)
    }

    @Test(arguments: [
        ("p0-x", 0), ("p7-x", 7), ("p123456789-x", 123_456_789), ("p01-x", 1), ("p3-", 3), ("p3-a-b", 3),
    ])
    func `a stated partition is used`(id: String, partition: Int) { #expect(Partition.of(id, of: 4) == partition) }

    @Test(arguments: ["x", "p", "p-x", "pa-x", "p1", "P1-x", "p1x-", "p+1-x", "p-1-x", "p1234567890-x", "p１-x", " p1-x", "123456789"])
    func `the partition of any other id is its hash`(id: String) { #expect(Partition.of(id, of: 7) == Int(Partition.crc16(id.utf8)) % 7) }
}
