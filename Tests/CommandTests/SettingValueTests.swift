import OperatorTools
import Testing

@testable import sluice

@Suite("Setting values")
struct SettingValueTests {
    @Test(arguments: [
        ("250ms", Duration.milliseconds(250)), ("10s", .seconds(10)), ("5m", .seconds(300)), ("1h", .seconds(3_600)), ("90", .seconds(90)),
        ("1.5", .milliseconds(1_500)), ("0.25s", .milliseconds(250)), ("0", .zero), ("2d", .seconds(172_800)), ("50us", .microseconds(50)),
    ])
    func `durations are parsed`(text: String, expected: Duration) {
        #expect(SettingValue.duration(text) == expected)
    }

    @Test(arguments: [
        "", "s", "ms", "-5s", "+5s", "5 s", "five", "1e3", "inf", "nan", "5x", ".5s", "5.", "1.2.3s", "99999999999999999999d",
    ])
    func `invalid durations are rejected`(text: String) {
        #expect(SettingValue.duration(text) == nil)
    }

    @Test(arguments: [
        ("64KiB", 65_536), ("1MiB", 1_048_576), ("2GiB", 2_147_483_648), ("1MB", 1_000_000), ("8kB", 8_000), ("512", 512), ("7B", 7),
        ("0.5KiB", 512),
    ])
    func `sizes are parsed`(text: String, expected: Int) {
        #expect(SettingValue.size(text) == expected)
    }

    @Test(arguments: ["", "KiB", "-1", "1 MiB", "1mib", "1TiB", "1e6", "0x10"])
    func `invalid sizes are rejected`(text: String) {
        #expect(SettingValue.size(text) == nil)
    }

    @Test(arguments: [
        (Duration.milliseconds(250), "250ms"), (.seconds(10), "10s"), (.seconds(600), "10m"), (.seconds(7_200), "2h"), (.zero, "0s"),
        (.microseconds(5), "5us"),
    ])
    func `formatted durations are parsed back`(duration: Duration, text: String) {
        #expect(SettingValue.text(duration) == text)
        #expect(SettingValue.duration(text) == duration)
    }

    @Test(arguments: [("127.0.0.1:8080", "127.0.0.1", 8080), ("[::1]:1", "::1", 1), ("localhost:0", "localhost", 0)])
    func `listen addresses are parsed`(text: String, host: String, port: Int) {
        let address = ListenAddress(text)
        #expect(address?.host == host)
        #expect(address?.port == port)
        #expect(address?.description == text)
    }

    @Test(arguments: ["", "8080", ":8080", "host", "host:", "host:70000", "::1:80", "[::1]", "[host]:80", "a b:80", "http://a:80", "a:-1"])
    func `invalid listen addresses are rejected`(text: String) {
        #expect(ListenAddress(text) == nil)
    }

    @Test(arguments: [
        ("redis://h:1/0", "redis://h:1/0"), ("redis://user:pass@h:1", "redis://user:redacted@h:1"),
        ("redis://:pass@h", "redis://:redacted@h"),
        ("redis://u:p/a@ss@h/2", "redis://u:redacted@h/2"), ("https://h/v1?key=abc", "https://h/v1?redacted"),
        ("https://h/v1#abc", "https://h/v1?redacted"), ("u:pass@h", "redacted"), ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ])
    func `URLs are shown without secrets`(url: String, shown: String) {
        #expect(SettingValue.withoutSecrets(url: url) == shown)
    }
}
