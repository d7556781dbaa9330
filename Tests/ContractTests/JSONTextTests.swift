import Contract
import Foundation
import JSONCodec
import Support
import Testing

struct JSONTextTests {
    @Test(arguments: [
        ("", #""""#), ("a", #""a""#), ("\"\\", #""\"\\""#), ("\n\r\t", #""\n\r\t""#), ("\u{8}\u{C}", #""\u0008\u000c""#),
        ("\0\u{1F}", #""\u0000\u001f""#),
        ("a\nb\"c", #""a\nb\"c""#), ("/", #""/""#), ("\u{7F}\u{2028}é🐼", "\"\u{7F}\u{2028}é🐼\""), ("\r\n", #""\r\n""#),
    ])
    func `only characters that require it are escaped`(text: String, written: String) {
        var out: [UInt8] = []
        out.appendJSONString(text)
        #expect(String(decoding: out, as: UTF8.self) == written)
    }

    @Test func `every ASCII character is encoded and decoded by JSONCodec and Foundation`() throws {
        for scalar in 0..<0x100 {
            let text = "x\(Unicode.Scalar(UInt32(scalar)).map(Character.init) ?? "?")y"
            var out: [UInt8] = []
            out.appendJSONString(text)
            #expect(try JSON(parsing: out).string == text)
            #expect(try JSONSerialization.jsonObject(with: Data(out), options: .fragmentsAllowed) as? String == text)
        }
    }

    @Test func `commas between members`() {
        var out = Array("{".utf8)
        out.appendJSONMember("a", "x")
        out.appendJSONMember("b", -5)
        out.appendJSONMember("c", true)
        out.appendJSONName("d")
        out.append(contentsOf: "{".utf8)
        out.appendJSONMember("e", 0)
        out.append(contentsOf: "}}".utf8)
        #expect(String(decoding: out, as: UTF8.self) == #"{"a":"x","b":-5,"c":true,"d":{"e":0}}"#)
    }

    @Test func `a comma after a value that ends in a brace`() throws {
        var out = Array("{".utf8)
        out.appendJSONMember("a", "{")
        out.appendJSONMember("b", "c")
        out.append(UInt8(ascii: "}"))
        #expect(try JSON(parsing: out) == ["a": "{", "b": "c"])
    }

    @Test(arguments: [0, 1, 9, 10, 99, 100, 12_345, Int.max, -1, Int.min])
    func `decimals keep their spelling`(value: Int) {
        var out: [UInt8] = Array("7".utf8)
        out.appendDecimal(value)
        #expect(String(decoding: out, as: UTF8.self) == "7\(value)")
        #expect(value.decimalLength == "\(value)".utf8.count)
    }
}
