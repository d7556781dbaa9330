import Glibc
import Support
import Testing

/// Calls `body` with the path of a temporary file that contains this text.
func withFile<Result>(_ text: String, _ body: (String) throws -> Result) throws -> Result {
    var template = Array("/tmp/sluice-test-XXXXXX\0".utf8CString)
    let descriptor = unsafe mkstemp(&template)
    try #require(descriptor >= 0)
    let path = String(decoding: template.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    defer { unsafe unlink(path) }
    let bytes = Array(text.utf8)
    #expect(SystemCalls.write(bytes, to: descriptor) == bytes.count)
    close(descriptor)
    return try body(path)
}
