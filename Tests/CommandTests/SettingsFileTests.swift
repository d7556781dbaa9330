import Testing

@testable import sluice

@Suite("Settings file")
struct SettingsFileTests {
    @Test(arguments: [
        ("A=1", "1"), ("  A = 1  ", "1"), ("export A=1", "1"), ("A=", ""), ("A=a b", "a b"), ("A=a#b", "a#b"), ("A=a #b", "a"),
        ("A=#b", ""),
        ("A='a # b'", "a # b"), (#"A="a \"b\" \\ \n" # c"#, "a \"b\" \\ \n"), ("A='it\\s'", "it\\s"), ("A=x=y", "x=y"), ("A=\"\"", ""),
        ("A=1\r", "1"),
    ])
    func `lines are parsed`(text: String, value: String) {
        let file = SettingsFile(parsing: "# first\n\n" + text + "\n", path: "f")
        #expect(file.faults == [])
        #expect(file.lines == [SettingsFile.Line(name: "A", value: value, number: 3)])
    }

    @Test(arguments: [
        ("rubbish", "f:2: the line has no \"=\"; write NAME=value"),
        ("1A=2", "f:2: the text before \"=\" is not a setting name; write NAME=value with a name of letters, digits and _"),
        ("A=\"x", "f:2: A: the quote is not closed; close it on the same line"),
        ("A='x' y", "f:2: A: text follows the closing quote; put the whole value in quotes"),
        ("B=2", "f:2: B is set a second time; the first assignment is in line 1: remove one of them"),
    ])
    func `invalid lines are faults`(text: String, message: String) {
        let file = SettingsFile(parsing: "B=1\n" + text, path: "f")
        #expect(file.faults.map(\.description) == [message])
    }

    @Test func `a missing file is a fault`() {
        let file = SettingsFile(path: "/nowhere/at/all")
        #expect(
            file.faults.map(\.description) == [
                "/nowhere/at/all: cannot be read: No such file or directory; name a readable file with --config"
            ])
    }
}
