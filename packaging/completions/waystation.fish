# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_waystation_global_optspecs
    string join \n h/help V/version
end

function __fish_waystation_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_waystation_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_waystation_using_subcommand
    set -l cmd (__fish_waystation_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c waystation -n "__fish_waystation_needs_command" -s h -l help -d 'Print help'
complete -c waystation -n "__fish_waystation_needs_command" -s V -l version -d 'Print version'
complete -c waystation -n "__fish_waystation_needs_command" -f -a "run" -d 'Run the gateway'
complete -c waystation -n "__fish_waystation_needs_command" -f -a "check" -d 'Say everything that would keep the gateway from running, before it does'
complete -c waystation -n "__fish_waystation_needs_command" -f -a "demo" -d 'See it work: gateway, vehicles and upstream in one process, with an outage in the middle'
complete -c waystation -n "__fish_waystation_needs_command" -f -a "simulate" -d 'Vehicles, for trying and for load'
complete -c waystation -n "__fish_waystation_needs_command" -f -a "queue" -d 'What lies in the queue, and whether all of it can be read'
complete -c waystation -n "__fish_waystation_needs_command" -f -a "import-config" -d 'Make a configuration of the one of Tesla\'s server, and say what could not be carried over'
complete -c waystation -n "__fish_waystation_needs_command" -f -a "pki" -d 'A throwaway certificate authority, server certificate and vehicle certificates'
complete -c waystation -n "__fish_waystation_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c waystation -n "__fish_waystation_using_subcommand run" -s c -l config -d 'Configuration file' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand run" -s h -l help -d 'Print help'
complete -c waystation -n "__fish_waystation_using_subcommand check" -s c -l config -d 'Configuration file' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand check" -l name -d 'The name that vehicles are configured with: whether the server\'s certificate is for it' -r
complete -c waystation -n "__fish_waystation_using_subcommand check" -l server -d 'Look at a gateway from outside instead, as a vehicle meets it' -r
complete -c waystation -n "__fish_waystation_using_subcommand check" -l ca -d 'With --server: the authorities that vehicles are told to trust, in PEM form [default: the system\'s]' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand check" -l offline -d 'Try no destination that is on another machine'
complete -c waystation -n "__fish_waystation_using_subcommand check" -l json -d 'One JSON document instead of lines'
complete -c waystation -n "__fish_waystation_using_subcommand check" -s h -l help -d 'Print help'
complete -c waystation -n "__fish_waystation_using_subcommand demo" -l for -d 'How long vehicles send, such as 30s' -r
complete -c waystation -n "__fish_waystation_using_subcommand demo" -l outage -d 'How long the upstream is away in the middle' -r
complete -c waystation -n "__fish_waystation_using_subcommand demo" -l json -d 'Print only the account, as JSON'
complete -c waystation -n "__fish_waystation_using_subcommand demo" -s h -l help -d 'Print help'
complete -c waystation -n "__fish_waystation_using_subcommand simulate" -l pki -d 'Folder that `waystation pki` wrote: server-ca.pem and vehicles/' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand simulate" -l connect -d 'Gateway to connect to, host:port' -r
complete -c waystation -n "__fish_waystation_using_subcommand simulate" -l vehicles -d 'How many vehicles; the folder holds a certificate for each' -r
complete -c waystation -n "__fish_waystation_using_subcommand simulate" -l rate -d 'Records a second of each vehicle; 0: as fast as acks come' -r
complete -c waystation -n "__fish_waystation_using_subcommand simulate" -l duration -d 'Stop after this long, such as 30s or 5m; what is not acknowledged is still waited for' -r
complete -c waystation -n "__fish_waystation_using_subcommand simulate" -l records -d 'Stop after this many records of each vehicle' -r
complete -c waystation -n "__fish_waystation_using_subcommand simulate" -l window -d 'Records that a vehicle may have unacknowledged' -r
complete -c waystation -n "__fish_waystation_using_subcommand simulate" -l mix -d 'Parts of V, alerts and errors records' -r
complete -c waystation -n "__fish_waystation_using_subcommand simulate" -l linger -d 'How long to wait for the last acks' -r
complete -c waystation -n "__fish_waystation_using_subcommand simulate" -l remember -d 'Keep in this file what was acknowledged; the next run with it goes on behind that' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand simulate" -l json -d 'Print the result as JSON'
complete -c waystation -n "__fish_waystation_using_subcommand simulate" -s h -l help -d 'Print help'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and not __fish_seen_subcommand_from show verify export import purge dead-letters forget help" -s h -l help -d 'Print help'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and not __fish_seen_subcommand_from show verify export import purge dead-letters forget help" -f -a "show" -d 'Segments, each destination\'s backlog and oldest record, space, and when it will be full'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and not __fish_seen_subcommand_from show verify export import purge dead-letters forget help" -f -a "verify" -d 'Read every record and say which numbers are missing; changes nothing'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and not __fish_seen_subcommand_from show verify export import purge dead-letters forget help" -f -a "export" -d 'Write records to a file, chosen by vehicle, type, time or number, while the gateway runs or not'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and not __fish_seen_subcommand_from show verify export import purge dead-letters forget help" -f -a "import" -d 'Put the records of another gateway\'s export into this queue, while the gateway runs or not'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and not __fish_seen_subcommand_from show verify export import purge dead-letters forget help" -f -a "purge" -d 'Erase a vehicle\'s records from the queue, the dead letters and the quarantine, while the gateway runs or not'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and not __fish_seen_subcommand_from show verify export import purge dead-letters forget help" -f -a "dead-letters" -d 'What could not be delivered or decoded, with the reasons'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and not __fish_seen_subcommand_from show verify export import purge dead-letters forget help" -f -a "forget" -d 'Take away the place of a destination that is no longer configured'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and not __fish_seen_subcommand_from show verify export import purge dead-letters forget help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from show" -s c -l config -d 'Configuration file' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from show" -l path -d 'The queue\'s directory, instead of the configuration\'s' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from show" -l json -d 'Print JSON'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from verify" -s c -l config -d 'Configuration file' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from verify" -l path -d 'The queue\'s directory, instead of the configuration\'s' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from verify" -l json -d 'Print JSON'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from export" -s c -l config -d 'Configuration file' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from export" -l path -d 'The queue\'s directory, instead of the configuration\'s' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from export" -s o -l output -d 'The file to write, or - for standard output' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from export" -l format -d 'How records are written' -r -f -a "protobuf\t'ExportedRecord messages of protos/export.proto, each behind its length; what `import` reads'
json\t'One JSON object a line, decoded, as the log destination writes them'
envelopes\t'The vehicles\' messages, built anew from what is kept of them, each behind its length as a varint'"
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from export" -l vin -d 'Only records of this vehicle; may be given several times' -r
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from export" -l type -d 'Only records of this type (V, alerts, …); may be given several times' -r
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from export" -l since -d 'Only records that the gateway received at or after this time, such as 2026-11-21T08:00:00Z' -r
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from export" -l until -d 'Only records that the gateway received before this time' -r
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from export" -l from -d 'Number of the first record' -r
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from export" -l to -d 'Number of the last record' -r
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from import" -s c -l config -d 'Configuration file' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from import" -l skip -d 'Pass over so many records of the first file: those that an import which was interrupted has done' -r
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from purge" -s c -l config -d 'Configuration file' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from purge" -l vin -d 'The vehicle. Its later records are taken like any other\'s: take it out of listener.allow_vins and restart, or change its own configuration, first' -r
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from purge" -l json -d 'Print JSON'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from purge" -s h -l help -d 'Print help'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from dead-letters" -s c -l config -d 'Configuration file' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from dead-letters" -l number -d 'Only the one with this number; may be given several times' -r
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from dead-letters" -l origin -d 'Only those of this destination; "listener": what could not be decoded' -r
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from dead-letters" -s o -l output -d 'The file to write, or - for standard output' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from dead-letters" -l path -d 'The queue\'s directory, instead of the configuration\'s' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from dead-letters" -l vin -d 'Only those of this vehicle' -r
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from dead-letters" -s h -l help -d 'Print help'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from dead-letters" -f -a "list" -d 'A line for each: number, time, who gave it up, vehicle, type, size, reason'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from dead-letters" -f -a "export" -d 'Write them to a file whole, as JSON lines with the bytes in base64'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from dead-letters" -f -a "retry" -d 'Hand them to the destinations that gave them up once more'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from dead-letters" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from forget" -s c -l config -d 'Configuration file' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from forget" -s h -l help -d 'Print help'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from help" -f -a "show" -d 'Segments, each destination\'s backlog and oldest record, space, and when it will be full'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Read every record and say which numbers are missing; changes nothing'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from help" -f -a "export" -d 'Write records to a file, chosen by vehicle, type, time or number, while the gateway runs or not'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from help" -f -a "import" -d 'Put the records of another gateway\'s export into this queue, while the gateway runs or not'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from help" -f -a "purge" -d 'Erase a vehicle\'s records from the queue, the dead letters and the quarantine, while the gateway runs or not'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from help" -f -a "dead-letters" -d 'What could not be delivered or decoded, with the reasons'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from help" -f -a "forget" -d 'Take away the place of a destination that is no longer configured'
complete -c waystation -n "__fish_waystation_using_subcommand queue; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c waystation -n "__fish_waystation_using_subcommand import-config" -s h -l help -d 'Print help'
complete -c waystation -n "__fish_waystation_using_subcommand pki" -l out -d 'Directory to write to; made if it is not there. With a PKI in it, only vehicles are added' -r -F
complete -c waystation -n "__fish_waystation_using_subcommand pki" -l name -d 'Name or address of the server, beside localhost, 127.0.0.1 and ::1; may be repeated' -r
complete -c waystation -n "__fish_waystation_using_subcommand pki" -l vehicles -d 'How many vehicles there shall be, with made-up VINs' -r
complete -c waystation -n "__fish_waystation_using_subcommand pki" -l vin -d 'VIN of a vehicle there shall be besides; may be repeated' -r
complete -c waystation -n "__fish_waystation_using_subcommand pki" -s h -l help -d 'Print help'
complete -c waystation -n "__fish_waystation_using_subcommand help; and not __fish_seen_subcommand_from run check demo simulate queue import-config pki help" -f -a "run" -d 'Run the gateway'
complete -c waystation -n "__fish_waystation_using_subcommand help; and not __fish_seen_subcommand_from run check demo simulate queue import-config pki help" -f -a "check" -d 'Say everything that would keep the gateway from running, before it does'
complete -c waystation -n "__fish_waystation_using_subcommand help; and not __fish_seen_subcommand_from run check demo simulate queue import-config pki help" -f -a "demo" -d 'See it work: gateway, vehicles and upstream in one process, with an outage in the middle'
complete -c waystation -n "__fish_waystation_using_subcommand help; and not __fish_seen_subcommand_from run check demo simulate queue import-config pki help" -f -a "simulate" -d 'Vehicles, for trying and for load'
complete -c waystation -n "__fish_waystation_using_subcommand help; and not __fish_seen_subcommand_from run check demo simulate queue import-config pki help" -f -a "queue" -d 'What lies in the queue, and whether all of it can be read'
complete -c waystation -n "__fish_waystation_using_subcommand help; and not __fish_seen_subcommand_from run check demo simulate queue import-config pki help" -f -a "import-config" -d 'Make a configuration of the one of Tesla\'s server, and say what could not be carried over'
complete -c waystation -n "__fish_waystation_using_subcommand help; and not __fish_seen_subcommand_from run check demo simulate queue import-config pki help" -f -a "pki" -d 'A throwaway certificate authority, server certificate and vehicle certificates'
complete -c waystation -n "__fish_waystation_using_subcommand help; and not __fish_seen_subcommand_from run check demo simulate queue import-config pki help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c waystation -n "__fish_waystation_using_subcommand help; and __fish_seen_subcommand_from queue" -f -a "show" -d 'Segments, each destination\'s backlog and oldest record, space, and when it will be full'
complete -c waystation -n "__fish_waystation_using_subcommand help; and __fish_seen_subcommand_from queue" -f -a "verify" -d 'Read every record and say which numbers are missing; changes nothing'
complete -c waystation -n "__fish_waystation_using_subcommand help; and __fish_seen_subcommand_from queue" -f -a "export" -d 'Write records to a file, chosen by vehicle, type, time or number, while the gateway runs or not'
complete -c waystation -n "__fish_waystation_using_subcommand help; and __fish_seen_subcommand_from queue" -f -a "import" -d 'Put the records of another gateway\'s export into this queue, while the gateway runs or not'
complete -c waystation -n "__fish_waystation_using_subcommand help; and __fish_seen_subcommand_from queue" -f -a "purge" -d 'Erase a vehicle\'s records from the queue, the dead letters and the quarantine, while the gateway runs or not'
complete -c waystation -n "__fish_waystation_using_subcommand help; and __fish_seen_subcommand_from queue" -f -a "dead-letters" -d 'What could not be delivered or decoded, with the reasons'
complete -c waystation -n "__fish_waystation_using_subcommand help; and __fish_seen_subcommand_from queue" -f -a "forget" -d 'Take away the place of a destination that is no longer configured'
