import Foundation
import Testing

/// An external program that some tests require; `docker/install-deps.sh test` installs all of them.
package enum TestProgram: String, Sendable {
    case chromium
    case espeak = "espeak-ng"
    case haproxy
    case nginx
    case node
    case openssl
    case pocketsphinx = "pocketsphinx_continuous"
    case python = "python3"
    case valkey = "valkey-server"

    package struct Missing: Error, CustomStringConvertible {
        package var program: TestProgram
        package var description: String { "\(program.rawValue) is not installed (docker/install-deps.sh test)" }
    }

    /// The program's path; nil when it is not installed.
    package var path: String? {
        switch self {
        case .chromium: Program.find("chromium", "chromium-browser", "google-chrome")
        // Debian installs servers in a folder that is not in every user's PATH.
        case .haproxy, .nginx: Program.find(rawValue, "../sbin/\(rawValue)")
        case .espeak, .node, .openssl, .pocketsphinx, .python, .valkey: Program.find(rawValue)
        }
    }

    /// - Throws: `Missing` when it is not installed.
    package func require() throws -> String {
        guard let path else { throw Missing(program: self) }
        return path
    }

    /// Whether a test that requires programs runs. With `CI` set it always runs and fails without them, so that CI never skips it.
    package static func areUsable(
        _ programs: [TestProgram], find: (TestProgram) -> String? = \.path, environment: [String: String]
    ) -> Bool {
        environment["CI"] != nil || programs.allSatisfy { find($0) != nil }
    }
}

extension Trait where Self == ConditionTrait {
    /// Skips the test when one of the programs is missing. With `CI` set, the test fails instead.
    package static func needs(_ programs: TestProgram...) -> Self {
        .enabled("needs \(programs.map(\.rawValue).joined(separator: " and ")) (docker/install-deps.sh test)") {
            TestProgram.areUsable(programs, environment: ProcessInfo.processInfo.environment)
        }
    }
}
