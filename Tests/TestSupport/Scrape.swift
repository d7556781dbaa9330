import Foundation

/// The metrics of a node's `/metrics`.
package struct Scrape: Sendable {
    private var values: [String: Double] = [:]
    /// The families named by TYPE lines.
    package private(set) var names: Set<String> = []

    package init(parsing text: String) {
        for line in text.split(separator: "\n") {
            if line.hasPrefix("# TYPE ") {
                if let name = line.split(separator: " ").dropFirst(2).first { names.insert(String(name)) }
            } else if let space = line.lastIndex(of: " "), let value = Double(line[line.index(after: space)...]) {
                values[String(line[..<space])] = value
            }
        }
    }

    /// - Parameter series: `name` or `name{label="value",…}` with labels sorted by name.
    package subscript(_ series: String) -> Double? { values[series] }

    /// The sum of all series of a name.
    package func sum(_ name: String) -> Double { values.filter { $0.key == name || $0.key.hasPrefix(name + "{") }.values.reduce(0, +) }
}

extension Node {
    package func scrape() async throws -> Scrape { Scrape(parsing: try await get("/metrics").body) }
}
