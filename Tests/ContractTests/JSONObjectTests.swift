import Testing

@testable import JSONCodec

/// Names of members: which ones are equal, and how much work their lookup takes.
struct JSONObjectTests {
    @Test func `an index of 85,000 names compares few of them`() {
        let names = (0..<85_000).map { "u\($0)" }
        var index = NameIndex()
        var (comparisons, right) = (0, 0)
        for (position, name) in names.enumerated() {
            let isNew = index.insert(position, hash: NameIndex.hash(name), replacing: false) { other in
                comparisons += 1
                return names[other] == name
            }
            if isNew { right += 1 }
        }
        // Only names with the same 32-bit hash are compared: fewer than one pair on average.
        #expect(comparisons < 50 && index.count == names.count)
        for (position, name) in names.enumerated() {
            let found = index.position(hash: NameIndex.hash(name)) { other in
                comparisons += 1
                return names[other] == name
            }
            if found == position { right += 1 }
        }
        #expect(right == 2 * names.count && comparisons < names.count + 100)
        #expect(index.position(hash: NameIndex.hash("v")) { names[$0] == "v" } == nil)
    }

    @Test func `names are equal when their bytes are`() throws {
        // Composed and decomposed: canonically equivalent, but different JSON names.
        let (composed, decomposed) = ("\u{E9}", "e\u{301}")
        for filler in [0, 40] {
            let members = (0..<filler).map { #","n\#($0)":0"# }.joined()
            let object = try #require(try JSON(parsing: "{\"\(composed)\":1,\"\(decomposed)\":2\(members)}").object)
            #expect(object[composed] == 1 && object[decomposed] == 2)
            #expect(throws: JSONError.self) { try JSON(parsing: "{\"\(composed)\":1\(members),\"\\u00e9\":2}") }
        }
        // The Kelvin sign is canonically equivalent to K.
        #expect(try JSON(parsing: "{\"\u{212A}\":1}")["K"] == nil)
    }

    @Test(arguments: [1, 7, 8, 9, 10, 17, 100])
    func `lookups give the last of several members of a name at every size`(count: Int) {
        let members = (0..<count).map { JSONObject.Member(name: "n\($0)", value: .integer($0)) }
        var object = JSONObject(members)
        #expect(object.repeatedName == nil)
        for number in 0..<count { #expect(object["n\(number)"] == .integer(number)) }
        #expect(JSONObject(members + [.init(name: "n0", value: true)])["n0"] == true)
        #expect(JSONObject(members + [.init(name: "n0", value: true)]).repeatedName == "n0")
        for number in 0..<count {
            let isRepeatedAdded = object.append(.init(name: "n\(number)", value: .null))
            let isNewAdded = object.append(.init(name: "m\(number)", value: .integer(-number)))
            #expect(!isRepeatedAdded && isNewAdded)
        }
        #expect(object.members.count == 2 * count && object.repeatedName == nil)
        for number in 0..<count {
            object["n\(number)"] = nil
            #expect(object["n\(number)"] == nil && object["m\(number)"] == .integer(-number))
        }
        #expect(object.members.count == count)
    }

    @Test func `members and elements are counted, also up to an error`() throws {
        func values(_ text: String) -> Int {
            var values = -1
            _ = try? JSON(parsing: text.utf8, values: &values)
            return values
        }
        #expect(values("1") == 0 && values("[]") == 0 && values("[1,2,3]") == 3 && values(#"{"a":[1,{"b":2}]}"#) == 4)
        #expect(values("[1,2,") == 3 && values(#"{"a":1,"a":2}"#) == 2)
    }
}
