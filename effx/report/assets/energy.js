// Every energy window, with what its gates saw.

function energySection() {
  const metered = ROWS.filter((row) => row.latest && row.energy.some((own) => own.source !== 'none'));
  if (!metered.length) return;
  const rows = metered.flatMap((row) => row.energy.filter((own) => own.source !== 'none').flatMap((own) =>
    (own.windows || []).map((window, place) => rowWith(row, { own, window, place: place + 1 }))));
  const per = (row) => row.window.joules_per_example ?? row.window.joules / row.window.examples;
  const watts = (row) => row.window.joules / (row.window.seconds ?? row.window.duration_s);
  const gates = (row) => row.failed.filter(([name]) => /energy|joules|power|window|counter/.test(name));
  section('energy', 'Energy windows',
    soft(`Source: ${[...new Set(rows.map((row) => row.own.source))].sort().join(', ')}. ${rows.some((row) => row.own.source === 'model') ? 'A model multiplies processor time by an assumed power; nothing was metered. ' : ''}An engine's figure is the mean of its windows; the interval holds their spread and what the meter cannot tell.`),
    new DataTable({
      caption: 'Energy windows', rows, sort: 'name',
      filters: [{ label: 'Source', value: (row) => row.own.source }, { label: 'Host', value: (row) => row.host }],
      columns: [
        { key: 'name', title: 'engine', align: 'word', sort: (row) => row.name, text: (row) => row.name },
        { key: 'scenario', title: 'scenario', align: 'word', sort: (row) => row.own.scenario, text: (row) => row.own.scenario },
        { key: 'window', title: 'window', sort: (row) => row.place, text: (row) => String(row.place) },
        { key: 'per', title: 'mJ/example', sort: per, text: (row) => inColumn(per(row), 'J/example') },
        { key: 'own', title: 'of the engine, 95 %', sort: (row) => row.own.joules_per_example, text: (row) => [inColumn(row.own.joules_per_example, 'J/example'), row.own.interval && el('small', {}, ` ${interval(...row.own.interval, 'J/example')}`)] },
        { key: 'source', title: 'source', align: 'word', sort: (row) => row.own.source, text: (row) => `${row.own.source} (${row.own.meter})` },
        { key: 'watts', title: 'W', sort: watts, text: (row) => significant(watts(row)) },
        { key: 'idle', title: 'idle, W', sort: (row) => row.own.idle?.watts, text: (row) => significant(row.own.idle?.watts) },
        { key: 'duration', title: 's', sort: (row) => row.window.duration_s, text: (row) => significant(row.window.duration_s) },
        { key: 'examples', title: 'examples', sort: (row) => row.window.examples, text: (row) => row.window.examples.toLocaleString('en') },
        { key: 'flags', title: 'disturbed by', align: 'word', text: (row) => (row.window.flags || []).join('; ') || '–' },
        { key: 'gates', title: 'energy gates failed', align: 'word wide', sort: (row) => gates(row).length, text: (row) => gates(row).map((own) => own.join(': ')).join('; ') || 'none' },
      ],
    }).root);
}
