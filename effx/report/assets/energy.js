// Every energy window, with the gates that failed.

function energySection() {
  const metered = ROWS.filter((row) => row.latest && row.energy.some((entry) => entry.source !== 'none'));
  if (!metered.length) return;
  const rows = metered.flatMap((row) => row.energy.filter((entry) => entry.source !== 'none').flatMap((entry) =>
    (entry.windows || []).map((window, index) => rowWith(row, { entry, window, index: index + 1 }))));
  const per = (row) => row.window.joules_per_example ?? row.window.joules / row.window.examples;
  const watts = (row) => row.window.joules / (row.window.seconds ?? row.window.duration_s);
  const gates = (row) => row.failed_gates.filter(([name]) => /energy|power|window/.test(name));
  section('energy', 'Energy windows',
    soft(`Source: ${[...new Set(rows.map((row) => row.entry.source))].sort().join(', ')}. ${rows.some((row) => row.entry.source === 'model') ? 'A model multiplies processor time by an assumed power; energy was not measured. ' : ''}An engine's energy is the mean over its windows; its interval covers their spread and the meter's uncertainty.`),
    new DataTable({
      caption: 'Energy windows', rows, sort: 'name',
      filters: [{ label: 'Source', value: (row) => row.entry.source }, { label: 'Host', value: (row) => row.host }],
      columns: [
        { key: 'name', title: 'engine', align: 'word', sort: (row) => row.name, text: (row) => row.name },
        { key: 'scenario', title: 'scenario', align: 'word', sort: (row) => row.entry.scenario, text: (row) => row.entry.scenario },
        { key: 'window', title: 'window', sort: (row) => row.index, text: (row) => String(row.index) },
        { key: 'per', title: 'mJ/example', sort: per, text: (row) => inColumn(per(row), 'J/example') },
        { key: 'mean', title: 'mean of the engine, 95 %', sort: (row) => row.entry.joules_per_example, text: (row) => [inColumn(row.entry.joules_per_example, 'J/example'), row.entry.interval && el('small', {}, ` ${interval(...row.entry.interval, 'J/example')}`)] },
        { key: 'source', title: 'source', align: 'word', sort: (row) => row.entry.source, text: (row) => `${row.entry.source} (${row.entry.meter})` },
        { key: 'watts', title: 'power, W', sort: watts, text: (row) => significant(watts(row)) },
        { key: 'idle', title: 'idle power, W', sort: (row) => row.entry.idle?.watts, text: (row) => significant(row.entry.idle?.watts) },
        { key: 'duration', title: 'duration, s', sort: (row) => row.window.duration_s, text: (row) => significant(row.window.duration_s) },
        { key: 'examples', title: 'examples', sort: (row) => row.window.examples, text: (row) => row.window.examples.toLocaleString('en') },
        { key: 'flags', title: 'disturbances', align: 'word', text: (row) => (row.window.flags || []).join('; ') || '–' },
        { key: 'gates', title: 'failed energy gates', align: 'word wide', sort: (row) => gates(row).length, text: (row) => gates(row).map((entry) => entry.join(': ')).join('; ') || 'none' },
      ],
    }).root);
}
