import Testing

@testable import RedisClient

@Suite struct RedisURLTests {
    @Test(arguments: [
        ("redis://localhost", "redis://localhost:6379/0"), ("redis://localhost/", "redis://localhost:6379/0"),
        ("REDIS://h:1", "redis://h:1/0"), ("redis://h:7000/3", "redis://h:7000/3"), ("rediss://h", "rediss://h:6379/0"),
        ("redis://:secret@h", "redis://h:6379/0"), ("redis://user:secret@h:1/2", "redis://user@h:1/2"), ("redis://@h", "redis://h:6379/0"),
        ("redis://[::1]", "redis://[::1]:6379/0"), ("redis://u:secret@[fe80::1]:7/1", "redis://u@[fe80::1]:7/1"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"), ("unix:///run/redis.sock?db=4", "unix:///run/redis.sock?db=4"),
        ("unix://:secret@/run/r%20s", "unix:///run/r s"), ("redis://h:/", "redis://h:6379/0"),
        ("redis+sentinel://h/main", "redis+sentinel://h:26379/main/0"),
        ("rediss+sentinel://u:secret@a:1,[::1]:2,c/my%20main/3", "rediss+sentinel://u@a:1,[::1]:2,c:26379/my main/3"),
        ("redis+cluster://h/", "redis+cluster://h:6379"),
        ("rediss+cluster://u:secret@a:1,[::1]:2,c", "rediss+cluster://u@a:1,[::1]:2,c:6379"),
    ]) func `valid URLs`(_ text: String, _ description: String) throws {
        let url = try RedisURL(text)
        #expect(url.description == description)
        var dumped = ""
        dump(url, to: &dumped)
        #expect(!dumped.contains("secret") && !"\(url)".contains("secret") && !String(reflecting: url).contains("secret"))
    }

    @Test func `percent-encoding is decoded`() throws {
        let url = try RedisURL("redis://us%40er:p%2Fa%3As%25s%C3%A9@h")
        #expect(url.user == "us@er")
        #expect(url.password == "p/a:s%sé")
        // A password may contain an unescaped '@' or ':'.
        #expect(try RedisURL("redis://:a@b:c@h").password == "a@b:c")
        #expect(try RedisURL("unix://u:p%40@/s").password == "p@")
    }

    @Test(arguments: [
        ("", "redis://"), ("localhost:6379", "redis://"), ("http://h", "scheme"), ("redis://", "host"), ("redis://:6379", "host"),
        ("redis://h:0", "port"),
        ("redis://h:65536", "port"), ("redis://h:secret", "port"), ("redis://h:+1", "port"), ("redis://:secret/x@h", "percent-encoded"),
        ("redis://:secret?x@h", "unix"), ("redis://h/secret", "database"), ("redis://h/-1", "database"), ("redis://h/1/2", "database"),
        ("redis://h?db=1", "unix"), ("redis://secret@h", "password"), ("redis://user:@h", "empty"), ("redis://:sec%ret@h", "%25"),
        ("redis://:secret%f@h", "%25"),
        ("redis://:%ffsecret@h", "UTF-8"), ("redis://::1", "brackets"), ("redis://[::1", "]"), ("redis://[::1]x", "[address]"),
        ("redis://[h]", "[address]"),
        ("unix://", "path"), ("unix:///", "path"), ("unix://host/path", "path"), ("unix:///p?x=1", "db"), ("unix:///p?db=x", "database"),
        ("unix:///" + String(repeating: "p", count: 120), "107"),
        ("redis+sentinel://:secret@h", "service"), ("redis+sentinel://h/", "service"), ("redis+sentinel://h//1", "service"),
        ("redis+sentinel://h/a/b", "database"), ("redis+sentinel://h/a/1/2", "service"), ("redis+sentinel://h,/a", "host"),
        ("redis+sentinel://h:1,h:x/a", "port"), ("redis+sentinel://h/a?db=1", "unix"),
        ("rediss+sentinel://:secret/@h/a", "percent-encoded"),
        ("redis+cluster://:secret@h/0", "databases"), ("rediss+cluster://h/main", "databases"), ("redis+cluster://h,", "host"),
        ("redis+cluster://h:1,h:x", "port"), ("redis+cluster://", "host"), ("redis+cluster://:secret/@h", "percent-encoded"),
    ]) func `invalid URLs`(_ text: String, _ reason: String) {
        let error = #expect(throws: RedisError.self) { try RedisURL(text) }
        #expect(error?.code == .invalidURL)
        #expect(error?.message.contains(reason) == true, "\(error?.message ?? "")")
        #expect(error?.message.contains("secret") == false)
    }
}
