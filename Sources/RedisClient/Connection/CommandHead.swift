/// The first arguments of a command, encoded once for many commands.
package struct CommandHead: Sendable {
    let bytes: [UInt8]
    /// Number of arguments that must follow.
    let further: Int

    /// - Parameters:
    ///   - arguments: the command's name and its first arguments.
    ///   - further: number of arguments that follow in each command.
    package init(_ arguments: String..., further: Int) {
        var pipeline = RedisPipeline()
        pipeline.begin(arguments: arguments.count + further)
        for argument in arguments { pipeline.argument(argument) }
        bytes = pipeline.bytes
        self.further = further
    }
}

extension RedisPipeline {
    /// Begins a command with encoded first arguments. Exactly `head.further` calls of `argument` must follow.
    package mutating func begin(_ head: CommandHead) { begin(encoded: head.bytes, further: head.further) }
}
