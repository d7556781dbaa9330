import Glibc

/// Converts a stream of 16-bit samples to another sample rate, with a windowed-sinc low-pass filter (J. O. Smith, "Digital Audio
/// Resampling", 2002). The output does not depend on how the input is cut into pieces.
struct Resampler {
    private let filter: ResamplingFilter
    /// Samples that later output still needs. Begins with the silence before the stream.
    private var window: [Float]
    /// Position of the next output sample: an index into `window`, and the fraction after it in units of 1 / `filter.outputStep`.
    private var index: Int
    private var fraction = 0
    /// Output samples computed so far. Tests use it to check that the work is proportional to the input.
    private(set) var steps = 0

    init(_ filter: ResamplingFilter) {
        self.filter = filter
        window = Array(repeating: 0, count: filter.halfWidth)
        index = filter.halfWidth
    }

    /// Converts the next samples.
    /// - Returns: all output whose filter lies within the samples received so far.
    mutating func feed(_ samples: [Int16]) -> [Int16] {
        guard !filter.isIdentity else { return samples }
        window.reserveCapacity(window.count + samples.count)
        for sample in samples { window.append(Float(sample)) }
        return convert()
    }

    /// Converts the end of the stream, which is followed by silence.
    mutating func finish() -> [Int16] {
        guard !filter.isIdentity else { return [] }
        let end = window.count
        window.append(contentsOf: repeatElement(0, count: filter.halfWidth))
        // The output covers the samples and not the silence after them.
        let output = convert(until: end)
        self = Resampler(filter)
        return output
    }

    private mutating func convert(until end: Int = .max) -> [Int16] {
        var output: [Int16] = []
        while index < end, index + filter.halfWidth < window.count {
            output.append(sample())
            steps += 1
            fraction += filter.inputStep
            index += fraction / filter.outputStep
            fraction %= filter.outputStep
        }
        let used = min(index - filter.halfWidth, window.count)
        window.removeFirst(used)
        index -= used
        return output
    }

    /// The output sample at the current position: the samples around it, weighted by the filter.
    private func sample() -> Int16 {
        let position = fraction * filter.phases
        let phase = position / filter.outputStep
        let rest = position % filter.outputStep
        let low = sum(phase)
        guard rest > 0 else { return Self.clipped(low) }
        return Self.clipped(low + (sum(phase + 1) - low) * Float(rest) / Float(filter.outputStep))
    }

    /// The samples around the current position, weighted by one row of the filter.
    private func sum(_ phase: Int) -> Float {
        let (table, window) = (filter.table, window)
        var place = index - filter.halfWidth + 1
        var row = phase * 2 * filter.halfWidth
        let end = row + 2 * filter.halfWidth
        var sum: Float = 0
        while row < end {
            sum += window[place] * table[row]
            place += 1
            row += 1
        }
        return sum
    }

    private static func clipped(_ value: Float) -> Int16 { Int16(max(-32_768, min(32_767, value.rounded()))) }
}

/// The filter from one sample rate to another: computed once, used by many streams.
final class ResamplingFilter: Sendable {
    /// Maximum of `phases`.
    private static let maximumPhases = 512
    /// Zero crossings of the sinc on each side.
    private static let zeroCrossings = 10.0
    /// Shape of the Kaiser window; side lobes are below -80 dB.
    private static let beta = 8.0
    /// Cut-off frequency relative to the lower Nyquist frequency, which leaves room for the transition band.
    private static let passband = 0.92

    let isIdentity: Bool
    /// In Hz.
    let outputRate: Int
    /// The rates divided by their common divisor: an output sample advances the input by `inputStep / outputStep` samples.
    let inputStep: Int
    let outputStep: Int
    /// Number of positions between two input samples for which the filter is tabulated. Positions between them are interpolated; there are
    /// none for the usual rates.
    let phases: Int
    /// Number of input samples on each side of an output sample.
    let halfWidth: Int
    /// `phases + 1` rows of `2 * halfWidth` weights.
    let table: [Float]

    /// - Parameters:
    ///   - input: sample rate in Hz, at least 1, like `output`.
    init(from input: Int, to output: Int) {
        let (input, output) = (max(1, input), max(1, output))
        outputRate = output
        let divisor = Self.commonDivisor(input, output)
        inputStep = input / divisor
        outputStep = output / divisor
        phases = min(outputStep, Self.maximumPhases)
        isIdentity = input == output
        // In units of the input's Nyquist frequency.
        let cutoff = min(1, Double(output) / Double(input)) * Self.passband
        let radius = Self.zeroCrossings / cutoff
        halfWidth = isIdentity ? 0 : Int(radius.rounded(.up))
        var table: [Float] = []
        if !isIdentity {
            let taps = 2 * halfWidth
            table.reserveCapacity((phases + 1) * taps)
            for phase in 0...phases {
                var row: [Double] = []
                for tap in 0..<taps {
                    let distance = Double(phase) / Double(phases) - Double(tap - halfWidth + 1)
                    row.append(Self.weight(distance, cutoff: cutoff, radius: radius))
                }
                // Every row passes a constant signal unchanged.
                let sum = row.reduce(0, +)
                for weight in row { table.append(Float(weight / sum)) }
            }
        }
        self.table = table
    }

    private static func weight(_ distance: Double, cutoff: Double, radius: Double) -> Double {
        guard abs(distance) < radius else { return 0 }
        let angle = Double.pi * distance * cutoff
        let sinc = abs(angle) < 1e-9 ? 1 : sin(angle) / angle
        let share = distance / radius
        return sinc * bessel(beta * (1 - share * share).squareRoot())
    }

    /// The modified Bessel function of the first kind and order 0, by its power series.
    private static func bessel(_ x: Double) -> Double {
        var sum = 1.0
        var term = 1.0
        for index in 1...40 {
            term *= (x / 2 / Double(index)) * (x / 2 / Double(index))
            sum += term
        }
        return sum
    }

    private static func commonDivisor(_ left: Int, _ right: Int) -> Int {
        var (left, right) = (left, right)
        while right != 0 { (left, right) = (right, left % right) }
        return left
    }
}
