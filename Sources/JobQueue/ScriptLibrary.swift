import RedisClient

/// Lua functions that scripts share.
///
/// Redis runs a script from its beginning at each call, with the definitions of its functions: 0.15 µs for each, and several times as long
/// after a pause. A script therefore contains only what it uses, and a call defines functions that are rarely used only when it needs one.
struct ScriptLibrary {
    /// A top-level definition: `local function name(…) … end` or `local name, … = …`. It uses earlier ones only.
    private struct Definition {
        var names: [Substring]
        var source: String
        var words: Set<Substring>
    }

    private let definitions: [Definition]
    /// The position of each name's definition; the last one of several.
    private let positions: [Substring: Int]

    /// - Parameter sources: Lua files with definitions and comments only. A definition starts at the beginning of a line.
    init(_ sources: [UInt8]...) {
        var definitions: [Definition] = []
        for source in sources {
            var lines: [Substring] = []
            func close() {
                guard let first = lines.first else { return }
                let text = lines.joined(separator: "\n")
                definitions.append(
                    Definition(names: Self.names(definedBy: first), source: text, words: Self.words(text[...])))
                lines = []
            }
            for line in Self.code(source) {
                if line.hasPrefix("local ") { close() }
                lines.append(line)
            }
            close()
        }
        self.definitions = definitions
        positions = definitions.indices.reduce(into: [:]) { positions, index in
            for name in definitions[index].names { positions[name] = index }
        }
    }

    /// A script with the definitions that it uses.
    /// - Parameters:
    ///   - source: the script's own lines.
    ///   - rarely: functions that most calls do not need. They are defined by the first call of one of them.
    func script(_ name: String, _ source: [UInt8], rarely: Set<Substring> = []) -> RedisScript {
        let body = Self.code(source).joined(separator: "\n")
        let words = Self.words(body[...])
        let always = closure(of: words.subtracting(rarely))
        let stubs = rarely.intersection(words).filter { positions[$0].map { !always.contains($0) } ?? false }.sorted()
        var parts = always.sorted().map { definitions[$0].source }
        if !stubs.isEmpty {
            let later = closure(of: Set(stubs)).subtracting(always).sorted()
            parts.append("local rare\nlocal function rarely()\nif rare then return rare end")
            parts += later.map { definitions[$0].source }
            parts.append("rare = {\(stubs.map { "\($0) = \($0)" }.joined(separator: ", "))}\nreturn rare\nend")
            parts += stubs.map { "local function \($0)(...) return rarely().\($0)(...) end" }
        }
        return RedisScript(name: name, source: (parts + [body]).joined(separator: "\n") + "\n")
    }

    /// The definitions of some names, and those that they use.
    private func closure(of names: Set<Substring>) -> Set<Int> {
        var found: Set<Int> = []
        var open = names.compactMap { positions[$0] }
        while let position = open.popLast() {
            guard found.insert(position).inserted else { continue }
            open += definitions[position].words.compactMap { positions[$0] }.filter { $0 < position }
        }
        return found
    }

    /// The lines without empty ones and those that are comments.
    private static func code(_ source: [UInt8]) -> [Substring] {
        String(decoding: source, as: UTF8.self).split(whereSeparator: \.isNewline).filter { line in
            let text = line.drop { $0 == " " }
            return !text.isEmpty && !text.hasPrefix("--")
        }
    }

    /// The names after `local`, or after `local function`.
    private static func names(definedBy line: Substring) -> [Substring] {
        let words = Self.list(line.prefix { $0 != "=" && $0 != "(" })
        return Array(words.dropFirst(words.dropFirst().first == "function" ? 2 : 1))
    }

    /// The identifiers and keywords of a text, also those in strings.
    private static func words(_ text: Substring) -> Set<Substring> { Set(list(text)) }

    private static func list(_ text: Substring) -> [Substring] {
        text.split { !($0.isASCII && ($0.isLetter || $0.isNumber) || $0 == "_") }
    }
}
