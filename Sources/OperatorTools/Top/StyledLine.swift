/// One line of a screen, as pieces of text with styles. Control characters are removed, since much of the text comes from Redis.
struct StyledLine: Equatable, Sendable {
    /// The SGR control sequence of a style (ECMA-48).
    enum Style: String, Sendable {
        case plain = ""
        case dim = "\u{1B}[2m"
        case bold = "\u{1B}[1m"
        /// The heading of a list.
        case heading = "\u{1B}[1;36m"
        case good = "\u{1B}[32m"
        case warning = "\u{1B}[33m"
        case alarm = "\u{1B}[1;31m"
        case selected = "\u{1B}[7m"
    }

    private(set) var pieces: [(text: String, style: Style)] = []

    init() {}

    init(_ text: String, _ style: Style = .plain) { pieces = [(Terminal.printable(text), style)] }

    static func == (left: StyledLine, right: StyledLine) -> Bool {
        left.pieces.elementsEqual(right.pieces) { $0.text == $1.text && $0.style == $1.style }
    }

    mutating func add(_ text: String, _ style: Style = .plain) { pieces.append((Terminal.printable(text), style)) }

    var text: String { pieces.map(\.text).joined() }
    var width: Int { pieces.reduce(0) { $0 + Cells.width(of: $1.text) } }

    /// The line, cut to a number of cells.
    func cut(to columns: Int) -> StyledLine {
        var line = StyledLine()
        var left = columns
        for piece in pieces where left > 0 {
            let text = Cells.width(of: piece.text) <= left ? piece.text : Cells.fit(piece.text, left)
            line.add(text, piece.style)
            left -= Cells.width(of: text)
        }
        return line
    }

    /// The whole line in one style, padded to `columns` cells.
    func filled(to columns: Int, _ style: Style) -> StyledLine {
        let text = text
        return StyledLine(text + String(repeating: " ", count: max(0, columns - Cells.width(of: text))), style)
    }

    /// The line for a terminal, with control sequences if it has colours.
    func rendered(hasColours: Bool) -> String {
        guard hasColours else { return text }
        return pieces.map { $0.style == .plain ? $0.text : $0.style.rawValue + $0.text + "\u{1B}[0m" }.joined()
    }
}

/// The width of text in terminal cells.
enum Cells {
    /// The width in cells.
    static func width(of text: String) -> Int {
        text.utf8.count == text.count ? text.utf8.count : text.reduce(0) { $0 + width(of: $1) }
    }

    /// Two for wide characters (Unicode Standard Annex 11; only the blocks that are likely in names), else one.
    private static func width(of character: Character) -> Int {
        guard let value = character.unicodeScalars.first?.value else { return 0 }
        switch value {
        case 0x1100...0x115F, 0x2E80...0xA4CF, 0xAC00...0xD7A3, 0xF900...0xFAFF, 0xFE30...0xFE6F, 0xFF00...0xFF60, 0xFFE0...0xFFE6,
            0x1F300...0x1F64F, 0x1F900...0x1F9FF, 0x20000...0x3FFFD:
            return 2
        default: return 1
        }
    }

    /// The text in exactly `columns` cells: cut with an ellipsis, or padded.
    static func fit(_ text: String, _ columns: Int, alignedRight: Bool = false) -> String {
        guard columns > 0 else { return "" }
        let whole = width(of: text)
        let padding = String(repeating: " ", count: max(0, columns - whole))
        if whole <= columns { return alignedRight ? padding + text : text + padding }
        var out = ""
        var used = 0
        for character in text {
            let cells = width(of: character)
            if used + cells > columns - 1 { break }
            out.append(character)
            used += cells
        }
        return out + "…" + String(repeating: " ", count: columns - used - 1)
    }
}
