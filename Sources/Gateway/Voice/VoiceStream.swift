import Contract
import Support

/// The voice of one answer: converts its audio to the client's sample rate, and records which part of the text each second of it speaks.
struct VoiceStream {
    private let filter: ResamplingFilter?
    private var resampler: Resampler?
    /// The spoken sentences.
    private(set) var spoken = SpokenText()

    /// - Parameter filter: from `Audio.sampleRate` to the client's rate; nil: the audio is passed on unchanged.
    init(_ filter: ResamplingFilter?) {
        self.filter = filter.flatMap { $0.isIdentity ? nil : $0 }
        resampler = self.filter.map(Resampler.init)
    }

    /// Processes one audio event.
    /// - Returns: what the client plays next, in base64; empty when there is nothing to send.
    mutating func receive(_ audio: Audio) -> String {
        spoken.receive(audio)
        guard audio.format == "pcm", var resampler else { return audio.data }
        defer { self.resampler = resampler }
        var bytes: [UInt8] = []
        // The worker encodes whole samples; anything else was written by another program.
        guard Base64.decode(audio.data, into: &bytes) else { return "" }
        var samples: [Int16] = []
        samples.reserveCapacity(bytes.count / 2)
        for index in stride(from: 0, to: bytes.count & ~1, by: 2) {
            samples.append(Int16(bitPattern: UInt16(bytes[index]) | UInt16(bytes[index + 1]) << 8))
        }
        var output = resampler.feed(samples)
        if audio.last { output += resampler.finish() }
        var converted: [UInt8] = []
        converted.reserveCapacity(2 * output.count)
        for sample in output {
            converted.append(UInt8(truncatingIfNeeded: sample))
            converted.append(UInt8(truncatingIfNeeded: sample >> 8))
        }
        return Base64.encode(converted)
    }
}

/// The filters of the sample rates in use. Confined to the event loop.
final class VoiceFilters {
    /// Maximum filters kept: a filter has up to 140 KB, and clients choose the rates.
    private static let maximumCount = 8

    private var filters: [Int: ResamplingFilter] = [:]

    /// The filter from `Audio.sampleRate` to a rate in Hz; nil when no conversion is needed.
    func filter(to rate: Int) -> ResamplingFilter? {
        guard rate != Audio.sampleRate else { return nil }
        if let filter = filters[rate] { return filter }
        if filters.count >= Self.maximumCount, let any = filters.keys.first { filters[any] = nil }
        let filter = ResamplingFilter(from: Audio.sampleRate, to: rate)
        filters[rate] = filter
        return filter
    }
}
