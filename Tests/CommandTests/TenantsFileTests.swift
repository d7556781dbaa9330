import JobQueue
import Testing
import Worker

@testable import sluice

struct TenantsFileTests {
    @Test func `tenants and their limits are read`() {
        let file = TenantsFile(
            parsing: """
                tenants:
                  - name: default
                    requests_per_minute: 60
                  - {name: big, weight: 2.5, concurrency: 40, tokens_per_minute: 100000, daily_tokens: 5000000}
                """, path: "t.yaml")
        #expect(file.faults.isEmpty)
        var (other, big) = (TenantLimits(), TenantLimits())
        other.requestsPerMinute = 60
        big.weight = 2.5
        (big.concurrency, big.tokensPerMinute, big.dailyTokens) = (40, 100_000, 5_000_000)
        #expect(file.tenants == ["default": other, "big": big])
    }

    @Test func `a tenant's receiver of webhooks is read`() {
        let file = TenantsFile(
            parsing: "tenants: [{name: a, webhook_url: 'https://host/hook', webhook_secret: whsec_AAAA}, {name: b}]", path: "t.yaml")
        #expect(file.faults.isEmpty && file.webhooks.keys.sorted() == ["a"])
        #expect(file.webhooks["a"]?.url == "https://host/hook" && file.webhooks["a"]?.secret == "whsec_AAAA")
    }

    @Test(arguments: [
        "x: 1", "tenants: 3", "tenants: [a]", "tenants: [{weight: 1}]", "tenants: [{name: a, weight: 0}]",
        "tenants: [{name: a, weight: x}]",
        "tenants: [{name: a, concurrency: 0}]", "tenants: [{name: a, daily_tokens: -1}]", "tenants: [{name: a, colour: red}]",
        "tenants: [{name: a}, {name: a}]", "tenants: [", "tenants: []\nmore: 1",
        "tenants: [{name: a, webhook_url: ftp://host}]", "tenants: [{name: a, webhook_secret: x}]",
        "tenants: [{name: a, webhook_url: 'https://h', webhook_secret: whsec_!}]",
    ]) func `a fault is named`(_ text: String) {
        #expect(!TenantsFile(parsing: text, path: "t.yaml").faults.isEmpty)
    }
}
