import Testing

extension Chaos {
    @Suite struct ScheduleTests {
        @Test func `a seed reproduces its schedule, and a long one has every kind of fault`() {
            func schedule(_ seed: UInt64) -> FaultSchedule {
                FaultSchedule(seed: seed, seconds: 300, workers: 3, gateways: 2, lease: 3_000)
            }
            #expect(schedule(7).entries == schedule(7).entries && schedule(7).entries != schedule(8).entries)
            var kinds: Set<String> = []
            for entry in schedule(7).entries {
                switch entry.fault {
                case .kill(.worker, _): kinds.insert("worker killed")
                case .kill(.gateway, _): kinds.insert("gateway killed")
                case .freeze: kinds.insert("frozen")
                case .restartRedis: kinds.insert("Redis restarted")
                case .trouble: kinds.insert("network")
                }
            }
            #expect(kinds.count == 5, "\(kinds)")
        }
    }
}
