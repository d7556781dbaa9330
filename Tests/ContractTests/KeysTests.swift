import Contract
import Testing

/// Keys and channels are public, because programs in other languages use them.
struct KeysTests {
    private let keys = Keys()
    private let id = JobID("p0-01ARZ")!

    @Test func `keys and channels of the contract`() {
        #expect(keys.queue(.interactive, partition: 0) == "{sluice.0}:queue:interactive")
        #expect(keys.queues(partition: 0) == ["{sluice.0}:queue:interactive", "{sluice.0}:queue:standard", "{sluice.0}:queue:batch"])
        #expect(Keys.group == "workers")
        #expect(keys.record(id) == "{sluice.0}:job:p0-01ARZ")
        #expect(keys.log(id) == "{sluice.0}:log:p0-01ARZ")
        #expect(keys.out(id) == "{sluice.0}:out:p0-01ARZ")
        #expect(keys.cancel(partition: 0) == "{sluice.0}:cancel")
        #expect(keys.interrupt(id) == "{sluice.0}:interrupt:p0-01ARZ")
        #expect(keys.session("p0-S") == "{sluice.0}:session:p0-S")
        #expect(keys.idempotency(owner: "tenant-a", key: "k") == "{sluice.0}:idempotency:tenant-a:k")
        #expect(keys.dead(partition: 0) == "{sluice.0}:dead")
        #expect(keys.worker("w1") == "{sluice}:worker:w1")
        #expect(keys.gateway("g1") == "{sluice}:gateway:g1")
        #expect(keys.paused == "{sluice}:paused")
        #expect(keys.drain("w1") == "{sluice}:drain:w1")
    }

    @Test func `the hash tag of all keys of a job contains namespace and partition`() throws {
        let keys = Keys(namespace: "prod", partitions: 4)
        let id = try #require(JobID("p3-x"))
        for key in [keys.record(id), keys.log(id), keys.out(id), keys.interrupt(id)] { #expect(key.hasPrefix("{prod.3}:")) }
        for partition in 0..<4 { #expect(keys.cancel(partition: partition) == "{prod.\(partition)}:cancel") }
        let by = try #require(JobID("some-id"))
        #expect(keys.record(by) == "{prod.\(Int(Partition.crc16("some-id".utf8)) % 4)}:job:some-id")
        let owned = Int(Partition.crc16("tenant-a:k".utf8)) % 4
        #expect(keys.idempotency(owner: "tenant-a", key: "k") == "{prod.\(owned)}:idempotency:tenant-a:k")
    }

    @Test func `keys of a partition that does not exist`() throws {
        let id = try #require(JobID("p9-x"))
        #expect(Keys(partitions: 2).record(id) == "{sluice.9}:job:p9-x")
    }

    @Test func `the partition of an idempotency key is its hash`() {
        // An owner named like an id must not choose its partition.
        #expect(
            Keys(partitions: 4).idempotency(owner: "p9-x", key: "k")
                == "{sluice.\(Int(Partition.crc16("p9-x:k".utf8)) % 4)}:idempotency:p9-x:k")
    }
}
