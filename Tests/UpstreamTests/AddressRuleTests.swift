import CurlTransport
import Testing

@Suite struct AddressRuleTests {
    private static func version6(_ groups: UInt16...) -> [UInt8] {
        groups.flatMap { [UInt8($0 >> 8), UInt8($0 & 0xFF)] }
    }

    @Test func `only addresses of the public internet are public`() {
        let rule = AddressRule.publicOnly
        let inside: [[UInt8]] = [
            [127, 0, 0, 1], [10, 1, 2, 3], [172, 31, 0, 1], [192, 168, 1, 1], [169, 254, 169, 254], [100, 64, 0, 1], [0, 0, 0, 0],
            [224, 0, 0, 1], [255, 255, 255, 255], [198, 19, 255, 255],
            Self.version6(0, 0, 0, 0, 0, 0, 0, 1), Self.version6(0, 0, 0, 0, 0, 0, 0, 0), Self.version6(0xFE80, 0, 0, 0, 0, 0, 0, 1),
            Self.version6(0xFD00, 0, 0, 0, 0, 0, 0, 1), Self.version6(0xFF02, 0, 0, 0, 0, 0, 0, 1),
            Self.version6(0x2001, 0xDB8, 0, 0, 0, 0, 0, 1),
            // 127.0.0.1 and 10.0.0.1 embedded in IPv6 addresses: mapped, NAT64, 6to4.
            Self.version6(0, 0, 0, 0, 0, 0xFFFF, 0x7F00, 1), Self.version6(0x64, 0xFF9B, 0, 0, 0, 0, 0x0A00, 1),
            Self.version6(0x2002, 0x7F00, 1, 0, 0, 0, 0, 1), [],
        ]
        for address in inside { #expect(!rule.allows(address), "\(address)") }
        let outside: [[UInt8]] = [
            [8, 8, 8, 8], [172, 32, 0, 1], [100, 128, 0, 1], [193, 0, 0, 1], Self.version6(0x2606, 0x4700, 0, 0, 0, 0, 0, 1),
            Self.version6(0, 0, 0, 0, 0, 0xFFFF, 0x0808, 0x0808),
        ]
        for address in outside { #expect(rule.allows(address), "\(address)") }
    }

    @Test func `a list replaces the default`() throws {
        let rule = try #require(AddressRule("10.0.0.0/9, fd00::/8,192.168.7.7"))
        #expect(rule.allows([10, 127, 0, 1]) && !rule.allows([10, 128, 0, 1]) && !rule.allows([8, 8, 8, 8]))
        #expect(rule.allows([192, 168, 7, 7]) && !rule.allows([192, 168, 7, 8]))
        #expect(rule.allows(Self.version6(0xFD12, 0, 0, 0, 0, 0, 0, 1)) && !rule.allows(Self.version6(0xFC00, 0, 0, 0, 0, 0, 0, 1)))
        let mixed = try #require(AddressRule("public,127.0.0.1"))
        #expect(mixed.allows([127, 0, 0, 1]) && mixed.allows([8, 8, 8, 8]) && !mixed.allows([127, 0, 0, 2]))
        #expect(AddressRule("any")?.allows([127, 0, 0, 1]) == true)
        #expect(AddressRule("::1/128")?.allows(Self.version6(0, 0, 0, 0, 0, 0, 0, 1)) == true)
    }

    @Test(arguments: [
        "", ",", "localhost", "10.0.0.0/33", "10.0.0/8", "256.0.0.1", "1.2.3.4.5", "::1::", "fd00::/129", "1:2:3", "/8", "10.0.0.1/8/8",
    ])
    func `anything else is no list`(text: String) { #expect(AddressRule(text) == nil) }
}
