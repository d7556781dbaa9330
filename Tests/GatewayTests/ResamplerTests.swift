import Glibc
import Testing

@testable import Gateway

/// Conversion of sample rates.
@Suite struct ResamplerTests {
    private static func sine(_ frequency: Double, rate: Int, seconds: Double, amplitude: Double = 10_000) -> [Int16] {
        (0..<Int(seconds * Double(rate))).map { Int16((amplitude * sin(2 * .pi * frequency * Double($0) / Double(rate))).rounded()) }
    }

    /// Converts in pieces of the given lengths, repeated.
    private static func convert(_ samples: [Int16], _ filter: ResamplingFilter, pieces: [Int]) -> [Int16] {
        var resampler = Resampler(filter)
        var output: [Int16] = []
        var start = 0
        var turn = 0
        while start < samples.count {
            let end = min(samples.count, start + pieces[turn % pieces.count])
            output += resampler.feed(Array(samples[start..<end]))
            start = end
            turn += 1
        }
        return output + resampler.finish()
    }

    @Test(arguments: [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000])
    func `a sine keeps its frequency, phase and level`(_ rate: Int) {
        let filter = ResamplingFilter(from: 24_000, to: rate)
        let output = Self.convert(Self.sine(440, rate: 24_000, seconds: 0.5), filter, pieces: [4_800])
        let wanted = Self.sine(440, rate: rate, seconds: 0.5)
        #expect(abs(output.count - wanted.count) <= 1)
        // The edges ring, because silence surrounds the tone.
        let inner = rate / 50..<min(output.count, wanted.count) - rate / 50
        let error = inner.map { abs(Int(output[$0]) - Int(wanted[$0])) }.max() ?? .max
        #expect(error <= 20, "0.2 % of the amplitude, also at the borders of pieces")
    }

    @Test func `the output does not depend on the pieces`() {
        let filter = ResamplingFilter(from: 24_000, to: 16_000)
        let tone = zip(Self.sine(440, rate: 24_000, seconds: 0.4), Self.sine(3_100, rate: 24_000, seconds: 0.4)).map { $0 / 2 + $1 / 2 }
        let whole = Self.convert(tone, filter, pieces: [tone.count])
        for pieces in [[1], [2, 3, 997], [4_800], [0, 50, 1]] { #expect(Self.convert(tone, filter, pieces: pieces) == whole, "\(pieces)") }
        #expect(whole.count == tone.count * 2 / 3)
    }

    @Test func `frequencies that the lower rate cannot express are removed`() {
        let filter = ResamplingFilter(from: 24_000, to: 16_000)
        let output = Self.convert(Self.sine(10_000, rate: 24_000, seconds: 0.3), filter, pieces: [4_800])
        let peak = output.dropFirst(800).dropLast(800).map { abs(Int($0)) }.max() ?? 0
        #expect(peak < 10, "without a filter 10 kHz would be heard as 6 kHz")
    }

    @Test func `equal rates change nothing, and the work is proportional to the input`() {
        let noise = (0..<5_000).map { Int16(truncatingIfNeeded: $0 &* 7_919) }
        #expect(Self.convert(noise, ResamplingFilter(from: 24_000, to: 24_000), pieces: [100]) == noise)
        var resampler = Resampler(ResamplingFilter(from: 24_000, to: 48_000))
        for sample in noise { _ = resampler.feed([sample]) }
        #expect(resampler.steps <= 2 * noise.count)
        let loud = Self.convert(Array(repeating: Int16.max, count: 2_000), ResamplingFilter(from: 24_000, to: 16_000), pieces: [333])
        #expect(loud.max() == Int16.max, "overshoot is clipped and does not wrap")
        #expect(loud.dropFirst(40).dropLast(40).allSatisfy { $0 > 32_700 })
    }
}
