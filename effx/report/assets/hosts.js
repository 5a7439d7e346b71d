// The same engines on several hosts: values, ranks and how the ranks change.

function hostsSection() {
  const byTask = new Map();
  for (const group of DATA.groups) byTask.set(group.task, [...(byTask.get(group.task) || []), group]);
  const tasks = [...byTask].filter(([, groups]) => new Set(groups.map((own) => own.host)).size > 1).map(([task]) => task);
  const list = el('ul', { class: 'hosts' }, Object.entries(DATA.hosts).map(([id, host]) => el('li', {}, el('code', {}, id),
    `: ${[host.cpu, `${host.cores} cores`, host.memory_bytes ? `${significant(host.memory_bytes / 2 ** 30)} GiB` : null, host.virtual ? 'virtual machine' : null, host.system, (host.gpu || []).map((own) => own.name).join(', ') || null, `effx ${host.effx}${host.effx_commit ? ` (${host.effx_commit})` : ''}`].filter(Boolean).join(', ')}`)));
  if (!tasks.length) { section('hosts', 'Host', list); return; }
  const state = { task: tasks[0], objective: 'latency' };
  const controls = el('div', { class: 'controls' });
  const place = el('div', {});
  const update = () => {
    const groups = byTask.get(state.task);
    const hosts = [...new Set(groups.map((own) => own.host))];
    const engines = new Map();
    for (const group of groups) {
      for (const own of group.members) {
        const row = ROWS[own];
        if (valueOf(row, state.objective) === null) continue;
        if (!engines.has(row.name)) engines.set(row.name, new Map());
        engines.get(row.name).set(row.host, row);
      }
    }
    const shared = [...engines].filter(([, own]) => hosts.every((host) => own.has(host)));
    const one = objective(state.objective);
    const ranks = new Map(hosts.map((host) => {
      const sorted = shared.map(([, own]) => valueOf(own.get(host), one.name)).sort((a, b) => (one.maximise ? b - a : a - b));
      const first = new Map();
      sorted.forEach((value, place) => { if (!first.has(value)) first.set(value, place + 1); });
      return [host, (row) => first.get(valueOf(row, one.name))];
    }));
    const rows = shared.map(([name, own]) => rowWith(own.get(hosts[0]), { name, own, digests: new Set([...own.values()].map((row) => row.digest)).size }));
    const unit = unitSymbol(one.unit);
    const table = new DataTable({
      caption: `${one.label} of the same engines on ${count(hosts.length, 'host')}`, rows, sort: hosts[0], empty: 'No engine was measured on all of these hosts.',
      columns: [
        { key: 'name', title: 'engine', align: 'word', sort: (row) => row.name, text: (row) => [row.name, row.digests > 1 ? el('small', {}, ' (built differently)') : null] },
        ...hosts.flatMap((host, number) => [
          { key: host, title: `${host}${unit ? `, ${unit}` : ''}`, sort: (row) => valueOf(row.own.get(host), one.name), text: (row) => cell(row.own.get(host), one) },
          { key: `${host} rank`, title: 'rank', sort: (row) => ranks.get(host)(row.own.get(host)), text: (row) => {
            const own = ranks.get(host)(row.own.get(host)), moved = ranks.get(hosts[0])(row.own.get(hosts[0])) - own;
            return [String(own), number && moved ? el('span', { class: moved > 0 ? 'up' : 'down' }, moved > 0 ? ` ▲${moved}` : ` ▼${-moved}`) : null];
          } },
        ]),
      ],
    });
    const some = engines.size - shared.length;
    place.replaceChildren(soft(`Ranks are by measured values, 1 is best, among the ${shared.length} engines that every host has${some ? ` (${some} others left out)` : ''}; arrows are against ${hosts[0]}. Neighbouring ranks may be ties: look at the intervals.${energetic(state.objective) ? ` Energy sources: ${sources(rows.flatMap((row) => [...row.own.values()])).join(', ')}.` : ''}`), table.root);
  };
  controls.append(...[
    tasks.length > 1 ? select('Task', tasks.map((own) => [own, own]), state.task, (own) => { state.task = own; update(); }) : null,
    select('Objective', OBJECTIVES.map((one) => [one.name, one.label]), state.objective, (own) => { state.objective = own; update(); }),
  ].filter(Boolean));
  section('hosts', 'Hosts side by side', controls, place, list);
  update();
}
