import Contract
import Support

/// Counts the output of a request, to estimate the tokens that its upstream has not reported.
struct OutputCount {
    /// Output at one moment.
    private struct Total {
        /// Chunks with output.
        var chunks = 0
        /// Minimum number of tokens: one for each chunk and for each word.
        var least = 0
        /// The estimate by the text, in sixteenths of a token.
        var sixteenths = 0
    }

    private var total = Total()
    /// `total` when the upstream last reported its token count.
    private var reported = Total()
    private var text = TokenEstimator()
    /// Words of the last chunks that exceed their number.
    private var spareChunks = 0

    /// Whether there was no output.
    var isEmpty: Bool { total.chunks == 0 }

    /// Counts chunks of the upstream; their text follows.
    mutating func add(chunks: Int) {
        total.chunks = total.chunks.saturatingAdding(chunks)
        total.least = total.least.saturatingAdding(chunks)
        spareChunks = chunks
    }

    /// Counts text of the last chunks.
    mutating func add(text piece: String) {
        let (words, sixteenths) = (text.words, text.sixteenths)
        text.add(piece)
        total.sixteenths = total.sixteenths.saturatingAdding(text.sixteenths - sixteenths)
        let more = text.words - words
        total.least = total.least.saturatingAdding(max(0, more - spareChunks))
        spareChunks = max(0, spareChunks - more)
    }

    /// Counts a tool call, which was put together from chunks that were counted before.
    mutating func add(call name: String, arguments: String) {
        total.sixteenths = total.sixteenths.saturatingAdding(TokenEstimate.call(name, arguments).saturatingMultiplied(by: 16))
    }

    /// The upstream has reported its token count.
    mutating func report() { reported = total }

    /// Estimated tokens since the last report. A chunk is a token, unless the words or the length of the text show that chunks hold several.
    var unreported: Int {
        let chunks = total.chunks - reported.chunks
        guard chunks > 0 else { return 0 }
        let least = total.least - reported.least
        let byText = TokenEstimator.tokens(total.sixteenths - reported.sixteenths)
        let holdSeveral = byText > chunks.saturatingAdding(chunks / 2) || least > chunks.saturatingAdding(chunks / 8)
        return holdSeveral ? max(byText, least) : least
    }
}
