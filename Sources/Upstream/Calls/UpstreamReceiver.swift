/// Who is told of one call. Called on the loop, synchronously; may cancel the call from inside.
package protocol UpstreamReceiver: AnyObject {
    /// The request was sent on an open connection: connecting is over, waiting for the first token.
    func upstreamConnected()
    /// A 2xx answer's head arrived.
    func upstreamAnswered()
    /// `chunks`: how many of the provider's chunks with output the outputs came in, the estimate of tokens generated.
    /// `outputs` is empty when the chunks brought only fragments of tool calls: those are told when they are complete, but count at once.
    /// With no chunks they are usage or the finish alone; usage may come before any token (Anthropic tells the prompt's first).
    func upstreamProduced(_ outputs: [UpstreamOutput], chunks: Int)
    /// The last call; not made after `cancel()`.
    func upstreamEnded(_ result: UpstreamResult)
}
