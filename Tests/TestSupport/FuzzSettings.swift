import Foundation

/// The amount of fuzzing and its seed: `SLUICE_FUZZ_INPUTS` (default: each test's own small number) and `SLUICE_FUZZ_SEED` (default: 1).
package enum FuzzSettings {
    package static func inputs(_ standard: Int) -> Int { value("SLUICE_FUZZ_INPUTS") ?? standard }
    package static var seed: UInt64 { value("SLUICE_FUZZ_SEED").map { UInt64(clamping: $0) } ?? 1 }

    private static func value(_ name: String) -> Int? { ProcessInfo.processInfo.environment[name].flatMap { Int($0) } }
}
